// Broadcasts of the gateway, as they arrive.

import { byId, el, foreign, say, time } from "./dom.js";
import { read } from "./exact.js";
import { follow } from "./stream.js";

const MOST_ROWS = 50;
const LISTENING = "Listening.";
/** Texts for the reasons of a gap. */
const REASONS = { unreadable: "a message of the gateway could not be read", "no-connection": "no link to the gateway was sure to receive them", "not-stored": "more came than could wait while the database was away", history: "the history was too short" };
let stream = null;
let followed = null;
let heard = 0;

function add(at, ...content) {
  const rows = byId("broadcast-rows");
  rows.prepend(el("tr", {}, el("td", {}, el("time", {}, time(at))), el("td", {}, ...content)));
  while (rows.children.length > MOST_ROWS) rows.lastElementChild.remove();
}

/** The message, and its parameters as the gateway spelled them. */
function words(message, parameters, spelled) {
  const content = [foreign(message)];
  if (message === "updatepos") content.push(el("span", { className: "muted" }, " – the catalogue changed; its cached replies are no longer fresh"));
  if (parameters && Object.keys(parameters).length > 0) content.push(el("code", { className: "foreign" }, spelled));
  return content;
}

function onEvent({ event, data }) {
  let entry;
  try {
    entry = JSON.parse(data);
  } catch {
    return;
  }
  if (event === "message") {
    heard += 1;
    say(byId("stream-words"), LISTENING);
    const content = words(entry.message, entry.parameters, read(data).members.get("parameters")?.source);
    if (entry.maybe_duplicate) content.push(el("span", { className: "badge-note" }, "perhaps a duplicate"));
    add(entry.received_at, ...content);
  } else if (event === "gap") {
    add(Date.now(), el("span", { className: "muted" }, "Broadcasts may be missing here: "), foreign(REASONS[entry.reason] ?? entry.reason ?? "no reason is given"));
  } else if (event === "reset") {
    add(Date.now(), el("span", { className: "muted" }, "The bridge began a new log; broadcasts may be missing."));
  } else if (event === "overloaded") {
    say(byId("stream-words"), "The bridge accepts no more listeners; trying again.");
  }
}

function onState(state, fault) {
  const open = heard > 0 ? LISTENING : "Listening; no broadcast yet.";
  const away = "The stream ended; reconnecting.";
  say(byId("stream-words"), state === "open" ? open : state === "refused"
    ? `Broadcasts cannot be shown: ${fault?.message ?? "the bridge refuses the stream."}` : away);
}

/** Listens to this instance only. */
export function listen(instance) {
  if (followed === instance && stream) return;
  silence();
  if (followed !== instance) {
    byId("broadcast-rows").replaceChildren();
    heard = 0;
  }
  followed = instance;
  if (instance === null) return;
  say(byId("stream-words"), "Connecting to the stream.");
  stream = follow(instance, { onEvent, onState });
}

/** Stops listening, such as while the tab is hidden. */
export function silence() {
  stream?.stop();
  stream = null;
}

export function forgetBroadcasts() {
  silence();
  followed = null;
  byId("broadcast-rows").replaceChildren();
}
