// The wall view, at `#wall`: every instance at once on a large screen, without scrolling.
//
// What does not fit is counted, and the worst is shown first.

import { bar, fill, isFull, left, name, sorted, stateOf } from "./budget.js";
import { byId, count, el, keep, mark, say, time } from "./dom.js";
import { place, sale } from "./facts.js";
import { foldFindings } from "./findings.js";
import { standing } from "./shards.js";

/** Up to so many instances each have a block of their own; more have a row each. */
const MOST_BLOCKS = 6;
/** Budgets in a row; a block shows as many as are not full. */
const BUDGETS_IN_ROW = 3;
/** A longer name is written smaller, so that a row holds it. */
const LONG = 24;
const BAD = ["down", "lost", "warn"];
/** The states of a shard for which a row has no room to say more. */
const SHORT = { down: "Down", lost: "No link", warn: "Failing", out: "Taken out" };
const PARTS = ["wall-view", "wall-unsettled"];

export const onWall = () => location.hash === "#wall";

const makeShard = () => el("li", {}, el("span", { className: "mark", "aria-hidden": "true" }), el("b"), el("span", { className: "words" }));
const makeBudget = () => el("li", {}, el("b"), bar(), el("span", { className: "numbers" }));

function make() {
  return el("li", { className: "place" }, el("h3", {}), el("ul", { className: "plain wall-shards" }),
    el("div", { className: "wall-budgets" }, el("ul", { className: "plain" }), el("p", { className: "muted" })),
    el("p", { className: "open-payments" }));
}

function updateShard(item, shard, brief) {
  const [sign, words] = standing(shard);
  const links = shard.links.filter((link) => link.state !== "set-aside").length;
  mark(item, "state", sign);
  say(item.querySelector("b"), shard.shard);
  const open = links ? count(links, "link") : "no link";
  say(item.querySelector(".words"), brief ? SHORT[sign] ?? open : `${words}, ${open}`);
}

function updateBudget(item, window, brief) {
  mark(item, "state", stateOf(window)[0]);
  say(item.querySelector("b"), name(window));
  fill(item, window);
  say(item.querySelector(".numbers"), brief ? String(left(window)) : `${left(window)} of ${window.capacity_points}`);
}

const WEIGHTS = { critical: 10_000, warning: 1000 };

/** What the bridge finds wrong with an instance, as one number. */
const judged = (status, instance) => status.attention.filter((one) => one.instance === instance.instance)
  .reduce((sum, { severity }) => sum + (WEIGHTS[severity] ?? 0), 0);

/** How much is wrong with an instance; 0: nothing. */
function trouble(instance, unsettled) {
  const linked = instance.shards.some((shard) => shard.links.some((link) => link.state !== "set-aside"));
  const closed = instance.budgets.filter((window) => ["closed", "waiting", "spent"].includes(stateOf(window)[0])).length;
  const bad = instance.shards.filter((shard) => BAD.includes(standing(shard)[0])).length;
  return instance.judged + (linked ? 0 : 1000) + 100 * unsettled + 10 * bad + closed;
}

function updateInstance(item, instance, unsettled, density) {
  mark(item, "grade", trouble(instance, unsettled) > 0 ? "bad" : "well");
  say(item.querySelector("h3"), instance.instance);
  item.querySelector("h3").title = instance.instance;
  mark(item.querySelector("h3"), "long", instance.instance.length > LONG);
  keep(item.querySelector(".wall-shards"), instance.shards, (shard) => shard.shard, makeShard, (line, shard) => updateShard(line, shard, density === "many"));
  const spent = sorted(instance.budgets.filter((window) => !isFull(window)));
  const shown = density === "one" ? sorted(instance.budgets) : density === "many" ? spent.slice(0, BUDGETS_IN_ROW) : spent;
  keep(item.querySelector(".wall-budgets ul"), shown, (window) => window.command, makeBudget,
    (line, window) => updateBudget(line, window, density === "many"));
  const full = instance.budgets.length - spent.length;
  const words = spent.length === 0 ? "every budget is full" : density === "many" ? "" : `${count(full, "other budget is", "other budgets are")} full`;
  say(item.querySelector(".wall-budgets p"), full > 0 && density !== "one" ? words : "");
  say(item.querySelector(".open-payments"), unsettled > 0 ? `${unsettled} to settle` : "");
}

/** Hides the last of `items` until `box` holds the rest, and says how many are hidden. */
function fit(box, items, more, words) {
  for (const item of items) item.hidden = false;
  more.hidden = true;
  let shown = items.length;
  while (shown > 1 && box.scrollHeight > box.clientHeight + 1) {
    shown -= 1;
    items[shown].hidden = true;
    more.hidden = false;
    say(more, words(items.length - shown));
  }
  return shown === items.length;
}

function showInstances(instances, unsettledOf) {
  const density = instances.length === 1 ? "one" : instances.length <= MOST_BLOCKS ? "few" : "many";
  mark(byId("wall-view"), "density", density);
  const list = byId("wall-list");
  const update = (item, instance) => updateInstance(item, instance, unsettledOf(instance), density);
  const show = (those) => {
    keep(list, those, (instance) => instance.instance, make, update);
    return fit(byId("wall-view"), [...list.children], byId("wall-more"), (hidden) => `and ${count(hidden, "more instance")}`);
  };
  // In order of name while all are seen, so that each keeps its place.
  if (show(instances)) return;
  const worst = (instance) => trouble(instance, unsettledOf(instance));
  show([...instances].sort((a, b) => worst(b) - worst(a)));
}

function showUnsettled(unsettled, counted, many) {
  const list = byId("wall-unsettled-list");
  byId("wall-unsettled").classList.toggle("urgent", unsettled.length > 0);
  say(byId("wall-unsettled-words"), unsettled.length ? `${counted ?? unsettled.length}: sent, and the outcome is unknown.` : "None.");
  keep(list, unsettled, (payment) => payment.id, () => el("li", {}, el("b"), el("span", { className: "muted" })), (item, payment) => {
    say(item.firstChild, `${sale(payment)} at ${place(payment)}`);
    say(item.lastChild, `${time(payment.dispatched_at ?? payment.created_at)}${many ? ` · ${payment.instance}` : ""} · ${payment.caller}`);
  });
  fit(byId("wall-unsettled"), [...list.children], byId("wall-unsettled-more"), (hidden) => `and ${hidden} more`);
}

/** Shows the instances and the unsettled payments, if the wall view is on. */
export function showWall(status, unsettled) {
  const on = onWall() && status !== null;
  document.body.classList.toggle("on-wall", on);
  for (const id of PARTS) byId(id).hidden = !on;
  const link = byId("wall-link");
  link.hidden = status === null;
  say(link, on ? "Full page" : "Wall");
  link.setAttribute("href", on ? "#" : "#wall");
  foldFindings(on && ((items, more) => fit(byId("attention"), items, more, (hidden) => `and ${hidden} more`)));
  if (!on) return;
  const counts = status.payments;
  const instances = status.instances.map((instance) => ({ ...instance, judged: judged(status, instance) }));
  showInstances(instances, (instance) => unsettled.filter((payment) => payment.instance === instance.instance).length);
  showUnsettled(unsettled, counts && counts.unknown + counts.unreadable, status.instances.length > 1);
}

export function forgetWall() {
  document.body.classList.remove("on-wall");
  for (const id of PARTS) byId(id).hidden = true;
  for (const id of ["wall-list", "wall-unsettled-list"]) byId(id).replaceChildren();
}
