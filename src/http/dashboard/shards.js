// Shards and their links, and the dialog that takes a shard out.

import { ask } from "./api.js";
import { announce, byId, count, duration, el, foreign, keep, mark, say, shape, trend } from "./dom.js";

const HISTORY = 120;
const histories = new Map();
let asked = null;
let changed = () => {};

const serving = (shard) => shard.links.filter((link) => link.state !== "set-aside");

/** The state of a shard: a name for the style, and a text. */
export function standing(shard) {
  const links = serving(shard).length;
  if (shard.cordoned) return links > 0 ? ["out", "Draining"] : ["out", "Taken out"];
  if (!shard.good && links > 0) return ["warn", "Failing, still linked"];
  if (!shard.good) return ["down", "Down"];
  if (links > 0) return ["good", "Serving"];
  // Another shard has taken over, so this one was not dialled again: whether it is reachable is unknown.
  return shard.in_doubt ? ["lost", "Lost its links"] : ["idle", "Standing by"];
}

function make() {
  const card = el("li", { className: "shard" },
    el("div", { className: "shard-head" },
      el("h3"),
      el("p", { className: "badge" }, el("span", { className: "mark", "aria-hidden": "true" }), el("span", { className: "words" }))),
    trend("history"),
    el("p", { className: "links-words" }),
    el("div", { className: "links", "aria-hidden": "true" }),
    el("p", { className: "muted facts-line" }),
    el("p", { className: "fault" }),
    el("button", { type: "button", className: "quiet" }));
  card.querySelector("button").addEventListener("click", () => confirmCordon(card.shard, card.others));
  return card;
}

function update(card, shard, others, key) {
  card.shard = shard;
  card.others = others;
  const [sign, words] = standing(shard);
  const links = serving(shard);
  const busy = links.filter((link) => link.state === "busy").length;
  const aside = shard.links.length - links.length;
  mark(card, "state", sign);
  say(card.querySelector("h3"), shard.shard);
  say(card.querySelector(".words"), words);
  say(card.querySelector(".links-words"),
    `${count(links.length, "link")}${busy ? `, ${busy} busy` : ""}${aside ? `, ${aside} set aside for a late reply` : ""}`);
  keep(card.querySelector(".links"), shard.links, (link) => link.link, () => el("span"), (box, link) => {
    mark(box, "state", link.state);
    box.title = `Link ${link.link}: ${link.state}, open for ${duration(link.open_seconds)}`;
  });
  const trip = shard.round_trip_us === null ? "no round trip measured" : `round trip ${(shard.round_trip_us / 1000).toFixed(1)} ms`;
  const longest = Math.max(0, ...links.map((link) => link.open_seconds));
  say(card.querySelector(".facts-line"), links.length ? `${trip} · longest open ${duration(longest)}` : trip);
  const fault = card.querySelector(".fault");
  const failures = shard.failures ? `${count(shard.failures, "failed attempt")} in a row${shard.cordoned ? "" : "; retried every few seconds"}. ` : "";
  const wanted = failures + (shard.last_fault ? `Last fault: ${shard.last_fault}` : "");
  if (fault.textContent !== wanted) {
    fault.replaceChildren(failures, ...(shard.last_fault ? ["Last fault: ", foreign(shard.last_fault)] : []));
  }
  say(card.querySelector("button"), shard.cordoned ? `Put ${shard.shard} back` : `Take ${shard.shard} out`);
  draw(card.querySelector("svg"), key, sign, links.length);
}

/** The last two minutes: a full bar for a second with links, a stump for one without. */
function draw(svg, key, sign, links) {
  const history = histories.get(key) ?? [];
  history.push([sign, links]);
  if (history.length > HISTORY) history.shift();
  histories.set(key, history);
  svg.setAttribute("viewBox", `0 0 ${HISTORY} 10`);
  svg.replaceChildren();
  const first = HISTORY - history.length;
  let start = 0;
  for (let index = 1; index <= history.length; index += 1) {
    const [kind, open] = history[start];
    if (index < history.length && history[index][0] === kind && (history[index][1] > 0) === (open > 0)) continue;
    const height = open > 0 ? 10 : kind === "idle" ? 2 : 4;
    shape(svg, "rect", { x: first + start, y: 10 - height, width: index - start, height, class: kind });
    start = index;
  }
}

export function showShards(instance, whenChanged) {
  changed = whenChanged;
  say(byId("waiting-words"), instance.waiting ? `${count(instance.waiting, "command")} waiting for a link.` : "No command waits for a link.");
  keep(byId("shard-list"), instance.shards, (shard) => shard.shard, make, (card, shard) => {
    const others = instance.shards.filter((other) => other !== shard && !other.cordoned && serving(other).length > 0);
    update(card, shard, others, `${instance.instance} ${shard.shard}`);
  });
}

function confirmCordon(shard, others) {
  asked = { shard: shard.shard, cordoned: !shard.cordoned };
  const out = asked.cordoned;
  say(byId("cordon-heading"), out ? `Take ${shard.shard} out?` : `Put ${shard.shard} back?`);
  say(byId("cordon-words"), out
    ? "It gets no new links, and its links close as soon as another shard serves; commands under way on them end normally. This applies to every instance that your token may use, until it is put back or the bridge restarts."
    : "The bridge may connect to it again, for every instance that your token may use.");
  say(byId("cordon-warning"), out && others.length === 0 ? "No other shard has a link at this moment: its links stay until another has." : "");
  say(byId("cordon-yes"), out ? "Take it out" : "Put it back");
  say(byId("cordon-problem"), "");
  byId("cordon").showModal();
}

export function prepareCordon() {
  byId("cordon-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const { shard, cordoned } = asked;
    const yes = byId("cordon-yes");
    if (yes.disabled) return;
    yes.disabled = true;
    try {
      await ask(`v1/bridge/shards/${encodeURIComponent(shard)}`, { method: "PUT", body: { cordoned } });
      byId("cordon").close();
      announce(cordoned ? `${shard} is taken out.` : `${shard} is put back.`);
      changed();
    } catch (fault) {
      say(byId("cordon-problem"), fault.message);
    } finally {
      yes.disabled = false;
    }
  });
}

export function forgetShards() {
  histories.clear();
  byId("shard-list").replaceChildren();
}
