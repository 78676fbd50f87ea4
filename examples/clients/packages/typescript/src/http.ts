/** One request to the bridge, within a deadline. */

/** An error of the bridge (RFC 9457). A later version may have other codes: go by `status` and `retryable` then. */
export interface Problem {
  readonly code: string;
  readonly status: number;
  readonly retryable: boolean;
  readonly title: string;
  readonly detail: string;
  readonly retryAfter: number | undefined;
  readonly requestId: string | undefined;
  readonly document: Readonly<Record<string, unknown>>;
}

/** The bridge, or what answers at its address, refuses, and a repetition would not help. */
export class Refused extends Error {
  constructor(readonly status: number, readonly problem: Problem | undefined) {
    super(problem ? `${problem.code}: ${problem.detail}` : `not an answer of the bridge: status ${status}`);
    this.name = "Refused";
  }
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
}

const MAX_BODY = 16 * 1024 * 1024;

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** The value of a text of JSON, if it is an object. */
export function objectOf(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** The bridge's problem document. Undefined for an answer of a proxy. */
export function problemOf({ status, text }: Answer): Problem | undefined {
  const document = status < 400 ? undefined : objectOf(text);
  if (typeof document?.code !== "string" || typeof document.retryable !== "boolean") return undefined;
  const { code, retryable, retry_after: after, request_id: requestId } = document;
  return {
    code,
    status,
    retryable,
    title: String(document.title ?? ""),
    detail: String(document.detail ?? ""),
    retryAfter: Number.isSafeInteger(after) && Number(after) >= 0 ? Number(after) : undefined,
    requestId: typeof requestId === "string" ? requestId : undefined,
    document,
  };
}

/** Seconds to wait, as the bridge or a proxy asks for. */
export function retryAfterOf(answer: Answer | undefined, problem: Problem | undefined): number | undefined {
  const header = answer?.headers.get("Retry-After") ?? "";
  return problem?.retryAfter ?? (/^\d{1,6}$/.test(header) ? Number(header) : undefined);
}

/** Waits, or until the signal is aborted. */
export function pause(seconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const timer = setTimeout(end, Math.min(seconds * 1000, 0x7fff_ffff));
    signal?.addEventListener("abort", end, { once: true });
    function end(): void {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    }
  });
}

/** The whole body as text, or an error. */
export async function textOf(response: Response): Promise<string> {
  let text = "";
  const decoder = new TextDecoder("utf-8", { fatal: true });
  for (const reader = response.body?.getReader(); reader;) {
    const { done, value } = await reader.read();
    if (done) break;
    text += decoder.decode(value, { stream: true });
    if (text.length > MAX_BODY) {
      await reader.cancel();
      throw new Error("the body is too large");
    }
  }
  return text + decoder.decode();
}

/** Where the bridge is, and what every request carries. */
export class Endpoint {
  readonly #url: string;
  readonly #token: string;
  readonly #fetch: typeof fetch;

  constructor(url: string, token: string, fetcher: typeof fetch) {
    if (!/^https?:$/.test(new URL(url).protocol)) throw new TypeError(`not the address of a bridge: ${url}`);
    if (!/^[!-~]+$/.test(token)) throw new TypeError("a token is visible ASCII");
    this.#url = url.replace(/\/+$/, "");
    this.#token = token;
    this.#fetch = fetcher;
  }

  /** Redirections are not followed: the token is for the bridge alone. */
  send(method: string, path: string, headers: Record<string, string>, signal: AbortSignal, body?: string): Promise<Response> {
    const request: RequestInit = {
      method,
      headers: { Authorization: `Bearer ${this.#token}`, ...headers },
      signal,
      redirect: "manual",
      cache: "no-store",
    };
    if (body !== undefined) request.body = body;
    // Called without `this`, as browsers want it.
    const send = this.#fetch;
    return send(this.#url + path, request);
  }

  /** The whole answer. Undefined where it did not come, or not whole, in time: the request may have been executed. */
  async exchange(
    method: string, path: string, headers: Record<string, string>, body: string, seconds: number,
    signal: AbortSignal | undefined,
  ): Promise<Answer | undefined> {
    const deadline = AbortSignal.timeout(seconds * 1000);
    try {
      const response = await this.send(method, path, headers, signal ? AbortSignal.any([deadline, signal]) : deadline, body);
      return { status: response.status, headers: response.headers, text: await textOf(response) };
    } catch {
      return undefined;
    }
  }
}
