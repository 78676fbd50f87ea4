// The budget of each command: the least left first, and those that are full folded away.

import { draw } from "./chart.js";
import { byId, count, duration, el, keep, mark, say, trend } from "./dom.js";

const HISTORY = 120;
const histories = new Map();

/** Points that may still be spent. */
export const left = (window) => Math.max(0, window.capacity_points - window.used_points);

/** The share of the points that is left, from 0 to 1. */
export const share = (window) => (window.capacity_points ? left(window) / window.capacity_points : 0);

export const name = (window) => (window.command === "*" ? "all commands" : window.command);

const waits = (window) => [
  window.waiting_payments && count(window.waiting_payments, "payment"),
  window.waiting_callers && count(window.waiting_callers, "read"),
  window.waiting_refreshes && count(window.waiting_refreshes, "refresh", "refreshes"),
].filter(Boolean);

/** The state of a command's budget: a name for the style, and a text. */
export function stateOf(window) {
  if (window.closed_for_ms > 0) {
    const until = new Date(Date.now() + window.closed_for_ms).toLocaleTimeString();
    return ["closed", `Closed by the gateway for ${duration(window.closed_for_ms / 1000)}, until ${until}`];
  }
  if (window.probing) return ["closed", "Closed by the gateway: one command tests whether it is open"];
  if (waits(window).length) return ["waiting", `Waiting: ${waits(window).join(", ")}`];
  if (window.used_points === 0) return ["full", "Full"];
  return window.used_points >= window.capacity_points ? ["spent", "Spent"] : ["open", "Open"];
}

const ORDER = ["closed", "waiting", "spent", "open", "full"];

/** Budgets in the order in which they need to be looked at. */
export function sorted(budgets) {
  const place = (window) => ORDER.indexOf(stateOf(window)[0]);
  return [...budgets].sort((a, b) => place(a) - place(b) || share(a) - share(b) || (a.command < b.command ? -1 : 1));
}

export const isFull = (window) => stateOf(window)[0] === "full";

/** A bar of the points left, and those that commands under way hold. */
export const bar = () => el("div", { className: "bar", "aria-hidden": "true" }, el("i", { className: "free" }), el("i", { className: "flying" }));

export function fill(row, window) {
  const percent = (points) => `${window.capacity_points ? Math.min(100, (points * 100) / window.capacity_points) : 0}%`;
  row.querySelector(".free").style.width = percent(left(window));
  row.querySelector(".flying").style.width = percent(Math.min(window.in_flight_points, window.capacity_points - left(window)));
}

const make = () => el("li", { className: "budget" }, el("h3"), bar(), el("span", { className: "numbers" }), trend("line"), el("span", { className: "state" }));

function record(window, key) {
  const history = histories.get(key) ?? [];
  history.push(share(window));
  if (history.length > HISTORY) history.shift();
  histories.set(key, history);
}

function update(row, window, key) {
  const [sign, words] = stateOf(window);
  mark(row, "state", sign);
  say(row.querySelector("h3"), name(window));
  fill(row, window);
  say(row.querySelector(".numbers"), `${left(window)} of ${window.capacity_points}`);
  say(row.querySelector(".state"), words);
  draw(row.querySelector("svg"), histories.get(key), HISTORY);
}

export function showBudget(instance) {
  const keyOf = (window) => `${instance.instance} ${window.command}`;
  for (const window of instance.budgets) record(window, keyOf(window));
  const show = (id, budgets) => keep(byId(id), budgets, (window) => window.command, make, (row, window) => update(row, window, keyOf(window)));
  const full = instance.budgets.filter(isFull);
  show("budget-rows", sorted(instance.budgets.filter((window) => !isFull(window))));
  show("budget-full-rows", full);
  byId("budget-full").hidden = full.length === 0;
  say(byId("budget-full").querySelector("summary"), `${count(full.length, "command")} with a full budget`);
}

export function forgetBudget() {
  histories.clear();
  for (const id of ["budget-rows", "budget-full-rows"]) byId(id).replaceChildren();
}
