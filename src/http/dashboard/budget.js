// The budget of each command.

import { byId, count, duration, el, keep, mark, say, shape, trend } from "./dom.js";

const HISTORY = 120;
const histories = new Map();

function make() {
  return el("tr", {},
    el("th", { scope: "row" }),
    el("td", { className: "left" },
      el("div", { className: "bar", "aria-hidden": "true" }, el("i", { className: "free" }), el("i", { className: "flying" })),
      el("span", { className: "numbers" })),
    el("td", { className: "wide" }, trend("line")),
    el("td", { className: "state" }));
}

function stateOf(window) {
  const waits = [
    window.waiting_payments && count(window.waiting_payments, "payment"),
    window.waiting_callers && count(window.waiting_callers, "read"),
    window.waiting_refreshes && count(window.waiting_refreshes, "refresh", "refreshes"),
  ].filter(Boolean);
  if (window.closed_for_ms > 0) {
    const until = new Date(Date.now() + window.closed_for_ms).toLocaleTimeString();
    return ["closed", `Closed by the gateway for ${duration(window.closed_for_ms / 1000)}, until ${until}`];
  }
  if (window.probing) return ["closed", "Closed by the gateway: one command tests whether it is open"];
  if (waits.length) return ["waiting", `Waiting: ${waits.join(", ")}`];
  if (window.used_points === 0) return ["full", "Full"];
  return window.used_points >= window.capacity_points ? ["spent", "Spent"] : ["open", "Open"];
}

function update(row, window, key) {
  const left = Math.max(0, window.capacity_points - window.used_points);
  const percent = (points) => `${window.capacity_points ? Math.min(100, (points * 100) / window.capacity_points) : 0}%`;
  const [sign, words] = stateOf(window);
  mark(row, "state", sign);
  say(row.querySelector("th"), window.command === "*" ? "all commands" : window.command);
  row.querySelector(".free").style.width = percent(left);
  row.querySelector(".flying").style.width = percent(Math.min(window.in_flight_points, window.capacity_points - left));
  say(row.querySelector(".numbers"), `${left} of ${window.capacity_points}`);
  say(row.querySelector(".state"), words);
  const history = histories.get(key) ?? [];
  history.push(window.capacity_points ? left / window.capacity_points : 0);
  if (history.length > HISTORY) history.shift();
  histories.set(key, history);
  const svg = row.querySelector("svg");
  svg.setAttribute("viewBox", `0 0 ${HISTORY} 20`);
  svg.replaceChildren();
  const first = HISTORY - history.length;
  const points = history.map((share, index) => `${first + index},${(19 - share * 18).toFixed(1)}`).join(" ");
  shape(svg, "polygon", { points: `${first},20 ${points} ${HISTORY - 1},20`, class: "area" });
  shape(svg, "polyline", { points, class: "stroke" });
}

export function showBudget(instance) {
  keep(byId("budget-rows"), instance.budgets, (window) => window.command, make,
    (row, window) => update(row, window, `${instance.instance} ${window.command}`));
}

export function forgetBudget() {
  histories.clear();
  byId("budget-rows").replaceChildren();
}
