/** Broadcasts, over restarts of the bridge and of what is in between. */
import type { EventOptions } from "./bridge.js";
import { type Answer, type Endpoint, Refused, objectOf, pause, problemOf, retryAfterOf, textOf } from "./http.js";

const MAX_EVENT = 16 * 1024 * 1024;
const FIRST_PAUSE_S = 3;

/** What the gateway broadcast. `maybeDuplicate`: it may repeat an earlier one. `data` is the event as it came. */
export interface Broadcast {
  readonly kind: "broadcast";
  readonly id: string;
  readonly message: string;
  readonly parameters: unknown;
  readonly receivedAt: string;
  readonly maybeDuplicate: boolean;
  readonly data: string;
}

/** Fetch all data that you keep: broadcasts may be missing (`gap`, `reset`), or the stream has just begun (`start`). */
export interface FetchAgain {
  readonly kind: "fetch-again";
  readonly id: string;
  readonly why: "start" | "gap" | "reset";
  readonly detail: Readonly<Record<string, unknown>>;
}

export type BridgeEvent = Broadcast | FetchAgain;

interface Fields {
  event: string;
  id?: string;
  data?: string;
  size: number;
}

/** A timer that aborts unless it is put off. */
class Watchdog {
  readonly #control = new AbortController();
  readonly #milliseconds: number;
  #timer: ReturnType<typeof setTimeout>;

  constructor(seconds: number) {
    this.#milliseconds = seconds * 1000;
    this.#timer = this.#start();
  }

  get signal(): AbortSignal {
    return this.#control.signal;
  }

  putOff(): void {
    this.stop();
    this.#timer = this.#start();
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  #start(): ReturnType<typeof setTimeout> {
    return setTimeout(() => this.#control.abort(new Error("the connection is silent")), this.#milliseconds);
  }
}

/** Lines of a stream of bytes, without their ends. */
async function* linesOf(body: ReadableStream<Uint8Array>, heard: () => void): AsyncGenerator<string, void, void> {
  const decoder = new TextDecoder();
  const reader = body.getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      heard();
      const parts = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = parts.pop() ?? "";
      if (rest.length > MAX_EVENT) throw new Error("an event is too large");
      for (const line of parts) yield line.endsWith("\r") ? line.slice(0, -1) : line;
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

/** An async iterable. `lastId` is the last event that was dealt with. */
export class Events implements AsyncIterable<BridgeEvent> {
  lastId: string | undefined;
  readonly #endpoint: Endpoint;
  readonly #path: string;
  readonly #silence: number;
  readonly #signal: AbortSignal | undefined;
  #pause = FIRST_PAUSE_S;
  #begun: boolean;

  /** Made by `Bridge.events`. */
  constructor(endpoint: Endpoint, path: string, { message, lastId, silence = 35, signal }: EventOptions) {
    this.lastId = lastId;
    this.#endpoint = endpoint;
    this.#path = message === undefined ? path : `${path}?${new URLSearchParams({ message })}`;
    this.#silence = silence;
    this.#signal = signal;
    this.#begun = lastId !== undefined;
  }

  /** Every broadcast, and when to fetch again. Connects anew after every end; throws Refused where that cannot help. */
  async *[Symbol.asyncIterator](): AsyncGenerator<BridgeEvent, void, void> {
    while (!this.#signal?.aborted) {
      const watchdog = new Watchdog(this.#silence);
      let seconds = 0;
      try {
        const signal = this.#signal ? AbortSignal.any([watchdog.signal, this.#signal]) : watchdog.signal;
        const opened = await this.#open(signal);
        if (typeof opened === "number") seconds = opened;
        else yield* this.#events(opened, watchdog);
      } catch (fault) {
        if (fault instanceof Refused) throw fault;
        // The connection failed: it is tried again.
      } finally {
        watchdog.stop();
      }
      await pause(Math.max(seconds, this.#pause), this.#signal);
    }
  }

  /** The stream; or, where it has to be asked for again, in how many seconds at the earliest. */
  async #open(signal: AbortSignal): Promise<ReadableStream<Uint8Array> | number> {
    const headers: Record<string, string> = { Accept: "text/event-stream" };
    if (this.lastId !== undefined) headers["Last-Event-ID"] = this.lastId;
    const response = await this.#endpoint.send("GET", this.#path, headers, signal);
    const isStream = response.headers.get("Content-Type")?.split(";", 1)[0]?.trim().toLowerCase() === "text/event-stream";
    if (response.status === 200 && isStream && response.body) return response.body;
    const answer: Answer = { status: response.status, headers: response.headers, text: await textOf(response) };
    const problem = problemOf(answer);
    // What a proxy answers while the bridge restarts passes, and so does a limit of the caller.
    if (answer.status >= 500 || answer.status === 429) return retryAfterOf(answer, problem) ?? 0;
    throw new Refused(answer.status, problem);
  }

  async *#events(body: ReadableStream<Uint8Array>, watchdog: Watchdog): AsyncGenerator<BridgeEvent, void, void> {
    let fields: Fields = { event: "message", size: 0 };
    for await (const line of linesOf(body, () => watchdog.putOff())) {
      if (line) {
        this.#take(fields, line);
        continue;
      }
      const event = fields.data === undefined ? undefined : this.#event(fields, fields.data);
      if (event) {
        // However long the caller takes with it is no silence of the bridge.
        watchdog.stop();
        yield event;
        watchdog.putOff();
      }
      if (fields.id !== undefined) this.lastId = fields.id;
      fields = { event: "message", size: 0 };
    }
  }

  #take(fields: Fields, line: string): void {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    fields.size += line.length;
    if (fields.size > MAX_EVENT) throw new Error("an event is too large");
    if (name === "event") fields.event = value || "message";
    else if (name === "id" && !value.includes("\0")) fields.id = value;
    else if (name === "data") fields.data = fields.data === undefined ? value : `${fields.data}\n${value}`;
    else if (name === "retry" && /^\d{1,7}$/.test(value)) this.#pause = Number(value) / 1000;
  }

  #event(fields: Fields, data: string): BridgeEvent | undefined {
    const detail = objectOf(data);
    if (!detail) throw new Error("the data of an event is no object");
    const id = fields.id ?? this.lastId ?? "";
    if (fields.event === "message") {
      return {
        kind: "broadcast",
        id,
        message: String(detail.message),
        parameters: detail.parameters,
        receivedAt: String(detail.received_at ?? ""),
        maybeDuplicate: detail.maybe_duplicate === true,
        data,
      };
    }
    const why = fields.event === "ready" && !this.#begun ? "start" : fields.event;
    if (why !== "start" && why !== "gap" && why !== "reset") return undefined;
    this.#begun = true;
    return { kind: "fetch-again", id, why, detail };
  }
}
