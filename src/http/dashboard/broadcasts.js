// Broadcasts: what administrators and the gateway told all tills, as they come.

import { byId, el, foreign, say, time } from "./dom.js";
import { follow } from "./stream.js";

const MOST_ROWS = 50;
const LISTENING = "Listening.";
/** Why entries may be missing, in words. */
const REASONS = { unreadable: "a message of the gateway could not be read", "no-connection": "no connection to the gateway was open or sure to hear", history: "the history did not reach back" };
let stream = null;
let followed = null;
let heard = 0;

function add(at, ...content) {
  const rows = byId("broadcast-rows");
  rows.prepend(el("tr", {}, el("td", {}, el("time", {}, time(at))), el("td", {}, ...content)));
  while (rows.children.length > MOST_ROWS) rows.lastElementChild.remove();
}

function words(message, parameters) {
  const content = [foreign(message)];
  if (message === "updatepos") content.push(el("span", { className: "muted" }, " – the catalogue changed; copies are asked for anew"));
  if (parameters && Object.keys(parameters).length > 0) content.push(el("code", { className: "foreign" }, JSON.stringify(parameters)));
  return content;
}

function onEvent({ event, data }) {
  let told;
  try {
    told = JSON.parse(data);
  } catch {
    return;
  }
  if (event === "message") {
    heard += 1;
    say(byId("stream-words"), LISTENING);
    const content = words(told.message, told.parameters);
    if (told.maybe_duplicate) content.push(el("span", { className: "badge-note" }, "perhaps heard twice"));
    add(told.received_at, ...content);
  } else if (event === "gap") {
    add(Date.now(), el("span", { className: "muted" }, "Broadcasts may be missing here: "), foreign(REASONS[told.reason] ?? told.reason ?? "no reason is given"));
  } else if (event === "reset") {
    add(Date.now(), el("span", { className: "muted" }, "The bridge began a new log; what came between is not known."));
  } else if (event === "overloaded") {
    say(byId("stream-words"), "The bridge has no room for another listener; trying again.");
  }
}

function onState(state, fault) {
  const open = heard > 0 ? LISTENING : "Listening; nothing has been said yet.";
  const away = "The stream has ended; connecting again.";
  say(byId("stream-words"), state === "open" ? open : state === "refused"
    ? `Broadcasts cannot be shown: ${fault?.message ?? "the bridge refuses the stream."}` : away);
}

/** Listens to this instance, and to no other. */
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

/** Stops listening, as while nobody looks. */
export function silence() {
  stream?.stop();
  stream = null;
}

export function forgetBroadcasts() {
  silence();
  followed = null;
  byId("broadcast-rows").replaceChildren();
}
