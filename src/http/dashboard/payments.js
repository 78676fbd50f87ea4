// Payments: those of unknown outcome first, since a person must settle them.

import { ask, inInstance } from "./api.js";
import { byId, el, keep, mark, say, time } from "./dom.js";
import { facts, place, sale } from "./facts.js";
import { openSettle } from "./settle.js";

const RECENT = 50;
/** The most that one page of the listing holds. */
const MOST = 1000;
/** How long a list is used while the counts stay the same: new evidence does not change them. */
const LIST_MS = 5000;
const RECENT_MS = 10_000;
const STATES = [["unknown", "unsettled"], ["dispatching", "being sent"], ["reserved", "waiting to be sent"], ["booked", "booked"], ["released", "not booked, key free"], ["settled", "settled by hand"], ["unreadable", "unreadable"]];
let lists = { at: 0, counts: "" };
let recentAt = 0;
let toSettle = [];

/** The payments that wait for a person, of all instances. */
export const unsettled = () => toSettle;

function make() {
  const button = el("button", { type: "button", className: "primary" }, "Settle…");
  const item = el("li", { className: "payment" },
    el("h3"), el("dl", { className: "facts" }), button);
  button.addEventListener("click", () => openSettle(item.payment, () => { lists.at = 0; }));
  return item;
}

function update(item, payment, many, operates) {
  const revision = `${payment.revision} ${payment.evidence?.looks ?? ""}`;
  item.payment = payment;
  if (item.dataset.revision === revision) return;
  mark(item, "revision", revision);
  const heading = `${sale(payment)} at ${place(payment)}${many ? `, ${payment.instance}` : ""}`;
  say(item.querySelector("h3"), heading);
  item.querySelector("dl").replaceChildren(...facts(payment).filter((_, index) => index !== 1 && index !== 2));
  item.querySelector("button").hidden = !operates;
  item.querySelector("button").setAttribute("aria-label", `Settle: ${heading}`);
}

async function listOf(instances, query) {
  const answers = await Promise.all(instances.map(async (instance) => {
    const { payments } = await ask(inInstance(instance, `payments${query}`));
    return payments.map((payment) => ({ ...payment, instance }));
  }));
  return answers.flat().sort((a, b) => Date.parse(b.created_at) - Date.parse(a.created_at));
}

/** Shows the counts, and reloads the lists if they may have changed. */
export async function showPayments(counts, instances, operates, whole = false) {
  const known = JSON.stringify([counts, instances]);
  keep(byId("payment-states"), counts ? STATES : [], ([state]) => state, () => el("span"), (box, [state, words]) => {
    say(box, `${counts[state]} ${words}`);
    mark(box, "state", state);
  });
  if (!counts && whole) say(byId("payment-states"), "The journal cannot be read: payments are refused meanwhile.");
  const now = Date.now();
  if (known !== lists.counts || now - lists.at > LIST_MS) {
    lists = { at: now, counts: known };
    const wanted = ["unknown", "unreadable"].filter((state) => counts?.[state] !== 0);
    toSettle = (await Promise.all(wanted.map((state) => listOf(instances, `?state=${state}&limit=${MOST}`)))).flat();
    byId("unsettled").hidden = toSettle.length === 0;
    keep(byId("unsettled-list"), toSettle, (payment) => payment.id, make,
      (item, payment) => update(item, payment, instances.length > 1, operates));
  }
  if (byId("recent").open && now - recentAt > RECENT_MS) await showRecent(instances);
}

async function showRecent(instances) {
  recentAt = Date.now();
  const payments = (await listOf(instances, `?limit=${RECENT}`)).slice(0, RECENT);
  const row = () => el("tr", {}, el("td"), el("td"), el("td"), el("td", { className: "wide" }));
  keep(byId("recent-rows"), payments, (payment) => payment.id, row, (line, payment) => {
    const [at, state, sold, caller] = line.children;
    say(at, time(payment.created_at));
    const settled = payment.settlement;
    say(state, settled ? `settled: ${settled.outcome}, ${settled.by}: ${settled.reason}` : payment.state);
    mark(state, "state", payment.state);
    say(sold, `${sale(payment)} at ${payment.POSID}`);
    say(caller, payment.caller);
  });
}

/** Makes the next update reload all lists. */
export function agePayments() {
  lists = { at: 0, counts: "" };
  recentAt = 0;
}

export function forgetPayments() {
  agePayments();
  toSettle = [];
  for (const id of ["unsettled-list", "recent-rows", "payment-states"]) byId(id).replaceChildren();
  byId("unsettled").hidden = true;
}
