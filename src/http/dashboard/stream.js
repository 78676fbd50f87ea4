// Reads the event stream with fetch, since EventSource cannot send the token as a header.

import { address, headers, inInstance, problemOf } from "./api.js";

const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 30_000;
/** More than any event of the bridge: bounds the memory if a stream never ends an event. */
const MOST_PENDING = 4 * 1024 * 1024;
/** The bridge sends a heartbeat every 15 seconds by default; a stream silent for this long is broken. */
const SILENCE_MS = 90_000;

/** Parses the events received so far, by those rules of the HTML standard that the bridge uses. */
export function* parse(state, text) {
  state.pending += text;
  const lines = state.pending.split(/\r\n|\n|\r(?!$)/);
  state.pending = lines.pop();
  for (const line of lines) {
    if (line === "") {
      if (state.data.length > 0) yield { event: state.event || "message", data: state.data.join("\n"), id: state.id };
      state.data = [];
      state.event = "";
      continue;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") state.data.push(value);
    else if (field === "event") state.event = value;
    else if (field === "id") state.id = value;
    else if (field === "retry" && /^\d+$/.test(value)) state.retry = Number(value);
  }
}

/** Follows an instance's broadcasts until `stop` is called. */
export function follow(instance, { onEvent, onState }) {
  const state = { pending: "", data: [], event: "", id: null, retry: FIRST_PAUSE_MS };
  let control = new AbortController();
  let stopped = false;
  let timer = null;
  let failures = 0;

  async function read() {
    control = new AbortController();
    const silence = { timer: null };
    const listen = () => {
      clearTimeout(silence.timer);
      silence.timer = setTimeout(() => control.abort(), SILENCE_MS);
    };
    listen();
    try {
      const resume = state.id === null ? {} : { "Last-Event-ID": state.id };
      const answer = await fetch(address(inInstance(instance, "events")), {
        headers: headers({ Accept: "text/event-stream", ...resume }),
        cache: "no-store",
        signal: control.signal,
      });
      if (!answer.ok) throw await problemOf(answer);
      onState("open");
      failures = 0;
      const decoder = new TextDecoder();
      Object.assign(state, { pending: "", data: [], event: "" });
      for (const reader = answer.body.getReader(); ;) {
        const { done, value } = await reader.read();
        if (done) break;
        listen();
        for (const event of parse(state, decoder.decode(value, { stream: true }))) if (!stopped) onEvent(event);
        if (state.pending.length > MOST_PENDING) control.abort();
      }
      return null;
    } catch (fault) {
      return fault;
    } finally {
      clearTimeout(silence.timer);
    }
  }

  async function run() {
    const fault = await read();
    if (stopped) return;
    failures += 1;
    // Retry slowly if the token may not listen, or the bridge has no such stream.
    const refused = [401, 403, 404, 405, 406].includes(fault?.status);
    onState(refused ? "refused" : "away", fault);
    const pause = refused ? LONGEST_PAUSE_MS : Math.min(LONGEST_PAUSE_MS, state.retry * 2 ** Math.min(failures - 1, 5));
    timer = setTimeout(run, Math.max(pause, (fault?.retryAfter ?? 0) * 1000) * (0.8 + Math.random() * 0.4));
  }

  run();
  return {
    stop() {
      stopped = true;
      clearTimeout(timer);
      control.abort();
    },
  };
}
