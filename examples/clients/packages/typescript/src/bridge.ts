/** The bridge, for one instance. */
import { Events } from "./events.js";
import { type Answer, Endpoint, objectOf, pause, problemOf, retryAfterOf } from "./http.js";
import { NOT_BOOKED, type Outcome, type Payment, type Store } from "./payments.js";

const LEAST_PAUSE_S = 0.25;
const VISIBLE = /^[!-~]+$/;

export interface BridgeOptions {
  /** Keeps payments over the end of the program: `FileStore` of `concertpos-bridge/file-store`, or your own. */
  readonly store?: Store;
  /** Passwords of the points of sale that have one. */
  readonly posPasswords?: Readonly<Record<number, string>>;
  /** For one request, in seconds: longer than the bridge's `server.deadline` (15 s). */
  readonly timeout?: number;
  /**
   * A payment that was begun longer ago, in seconds, is not sent again. It has to be shorter than the bridge's
   * `payments.keep` (30 days), after which a key is new.
   */
  readonly maxAge?: number;
  /** Instead of the global `fetch`. */
  readonly fetch?: typeof fetch;
}

export interface PayOptions {
  /** Without one, a new key is made. A caller that keeps books gives its own, one for each sale, written down before. */
  readonly key?: string;
  /** No request begins later than so many seconds after the call. */
  readonly patience?: number;
  /** Ends the waiting: the outcome is then unknown, unless it was known already. */
  readonly signal?: AbortSignal;
}

export interface EventOptions {
  /** Only broadcasts with this message. */
  readonly message?: string;
  /** Go on after this id; without it, from now on. */
  readonly lastId?: string;
  /** A connection that is silent for so many seconds is broken: longer than two heartbeats of the bridge (15 s). */
  readonly silence?: number;
  readonly signal?: AbortSignal;
}

export class Bridge {
  readonly #endpoint: Endpoint;
  readonly #instance: string;
  readonly #root: string;
  readonly #store: Store | undefined;
  readonly #posPasswords: Readonly<Record<number, string>>;
  readonly #timeout: number;
  readonly #maxAge: number;

  constructor(url: string, token: string, instance: string, options: BridgeOptions = {}) {
    this.#endpoint = new Endpoint(url, token, options.fetch ?? fetch);
    this.#instance = instance;
    this.#root = `/v1/instances/${encodeURIComponent(instance)}`;
    this.#store = options.store;
    this.#posPasswords = { ...options.posPasswords };
    if (!Object.values(this.#posPasswords).every((password) => VISIBLE.test(password))) {
      throw new TypeError("a password with other than visible ASCII goes into the sale, as `posPassword`");
    }
    this.#timeout = options.timeout ?? 20;
    this.#maxAge = options.maxAge ?? 7 * 86_400;
  }

  /** Books a sale, at most once. The same call with the same key gives the same outcome. */
  async pay(posId: number, sale: object, options: PayOptions = {}): Promise<Outcome> {
    const key = options.key ?? crypto.randomUUID();
    if (key.length > 255 || !VISIBLE.test(key) || key.includes('"')) {
      throw new TypeError("a key has 1 to 255 characters of visible ASCII, and no quotation mark");
    }
    const payment = { instance: this.#instance, posId, key, sale: JSON.stringify(sale), createdAt: Date.now() };
    return this.repeat(await this.#store?.begin(payment) ?? payment, options);
  }

  /** Repeats each payment in the store, oldest first: what the program did not finish before it ended. */
  async *resume(options: Omit<PayOptions, "key"> = {}): AsyncGenerator<Outcome, void, void> {
    for (const payment of await this.#store?.open() ?? []) {
      if (payment.instance === this.#instance) yield await this.repeat(payment, options);
    }
  }

  /** Sends a payment with its key until its outcome is known. */
  async repeat(payment: Payment, { patience = 60, signal }: Omit<PayOptions, "key"> = {}): Promise<Outcome> {
    const giveUp = performance.now() + patience * 1000;
    for (;;) {
      // A clock that was set back may make it look younger than it is, by as much.
      if (Date.now() - payment.createdAt > this.#maxAge * 1000) {
        return { state: "unknown", payment, problem: undefined, tooOld: true };
      }
      const answer = await this.#send(payment, signal);
      const outcome = outcomeOf(payment, answer);
      if (outcome.state !== "unknown") {
        await this.#store?.end(payment);
        return outcome;
      }
      if (outcome.problem && !outcome.problem.retryable) return outcome;
      const seconds = Math.max(retryAfterOf(answer, outcome.problem) ?? 1, LEAST_PAUSE_S);
      if (signal?.aborted || performance.now() + seconds * 1000 > giveUp) return outcome;
      await pause(seconds, signal);
      if (signal?.aborted) return outcome;
    }
  }

  /** Broadcasts of the gateway. */
  events(options: EventOptions = {}): Events {
    return new Events(this.#endpoint, `${this.#root}/events`, options);
  }

  #send(payment: Payment, signal: AbortSignal | undefined): Promise<Answer | undefined> {
    const headers: Record<string, string> = { "Content-Type": "application/json", "Idempotency-Key": payment.key };
    const password = this.#posPasswords[payment.posId];
    if (password !== undefined) headers["X-POS-Password"] = password;
    const path = `${this.#root}/points-of-sale/${payment.posId}/payments`;
    return this.#endpoint.exchange("POST", path, headers, payment.sale, this.#timeout, signal);
  }
}

/** What one answer says about the sale. */
function outcomeOf(payment: Payment, answer: Answer | undefined): Outcome {
  const reply = answer?.status === 201 ? objectOf(answer.text) : undefined;
  if (answer && reply) {
    const replayed = answer.headers.get("Idempotent-Replayed") === "true";
    return { state: "booked", payment, reply, text: answer.text, replayed };
  }
  const problem = answer && problemOf(answer);
  if (problem && !problem.retryable && NOT_BOOKED.has(problem.code)) return { state: "not-booked", payment, problem };
  return { state: "unknown", payment, problem, tooOld: false };
}
