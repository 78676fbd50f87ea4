// Requests to the bridge. The token is kept in this tab's session only, and sent only in the Authorization header.

const KEY = "concertpos-bridge-token";
const PATIENCE_MS = 10_000;

let inMemory = null;

/** An error answer of the bridge, with its problem document. */
export class Refused extends Error {
  constructor(status, problem, retryAfter) {
    super(problem.detail || problem.title || `The bridge answered ${status}.`);
    this.status = status;
    this.code = problem.code || "";
    this.retryAfter = retryAfter;
  }
}

/** No answer at all. */
export class Unreachable extends Error {
  constructor() {
    super("The bridge does not answer.");
    this.status = 0;
    this.code = "";
  }
}

// A browser may forbid storage; the token is then kept in memory until the page is closed.
export function token() {
  try {
    return sessionStorage.getItem(KEY) ?? inMemory;
  } catch {
    return inMemory;
  }
}

export function keepToken(given) {
  inMemory = given;
  try {
    if (given === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, given);
  } catch {
    // Kept in memory.
  }
}

// Relative, so that the page also works behind a proxy that adds a prefix.
export const address = (path) => new URL(path, document.baseURI);

export const inInstance = (instance, path) => `v1/instances/${encodeURIComponent(instance)}/${path}`;

export function headers(more = {}) {
  const known = token();
  return known === null ? more : { ...more, Authorization: `Bearer ${known}` };
}

/** Keeps numbers as text if JavaScript would change their digits (1.10, or twenty digits). */
export function exact(_, value, context) {
  return typeof value === "number" && context?.source && String(value) !== context.source ? context.source : value;
}

export async function problemOf(response) {
  const problem = await response.json().catch(() => ({}));
  return new Refused(response.status, problem, Number(response.headers.get("Retry-After")) || null);
}

/** Sends a request and returns the text of the answer, which is JSON. */
export async function asText(path, { method = "GET", body, more } = {}) {
  try {
    const response = await fetch(address(path), {
      method,
      headers: headers({ Accept: "application/json", ...(body ? { "Content-Type": "application/json" } : {}), ...more }),
      body: body ? JSON.stringify(body) : undefined,
      cache: "no-store",
      credentials: "same-origin",
      redirect: "error",
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    if (!response.ok) throw await problemOf(response);
    return await response.text();
  } catch (fault) {
    throw fault instanceof Refused ? fault : new Unreachable();
  }
}

/** Sends a request and returns the JSON of the answer. */
export async function ask(path, options) {
  return JSON.parse(await asText(path, options), exact);
}
