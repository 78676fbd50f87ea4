// Finds payments by key, id, time and point of sale.

import { ask, inInstance } from "./api.js";
import { byId, count, el, foreign, keep, mark, say, time } from "./dom.js";
import { facts, place, sale } from "./facts.js";
import { openSettle } from "./settle.js";

const MOST = 50;
const ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const TO_SETTLE = ["unknown", "unreadable"];

let instances = [];
let operates = false;
let round = 0;

/** Which instances are searched, and whether what is found may be settled. */
export function searchIn(names, mayOperate) {
  [instances, operates] = [names, mayOperate];
}

/** The query of the listing, or an error for the person. */
function queryOf(form) {
  const [text, pos, from, to] = ["text", "pos", "from", "to"].map((name) => form.elements[name].value.trim());
  const query = new URLSearchParams({ limit: String(MOST) });
  if (!text && !pos && !from && !to && form.elements.from.validity.valid && form.elements.to.validity.valid) {
    throw new Error("Give a key, an id, a point of sale or a time.");
  }
  if (pos && !/^\d+$/.test(pos)) throw new Error("The point of sale is a number.");
  if (!form.elements.from.validity.valid || !form.elements.to.validity.valid) throw new Error("A time needs a day and an hour.");
  if (from && to && from >= to) throw new Error("The end lies before the start.");
  if (text) query.set("idempotency_key", text);
  if (pos) query.set("pos_id", pos);
  if (from) query.set("from", new Date(from).toISOString());
  if (to) query.set("to", new Date(to).toISOString());
  return { id: ID.test(text) ? text.toLowerCase() : null, query };
}

/** The payment of this id, if it is in the instance and the listing's other conditions hold. */
async function byTheId(instance, id, query) {
  const payment = await ask(inInstance(instance, `payments/${id}`)).catch((fault) => {
    if (fault.status === 404) return null;
    throw fault;
  });
  if (!payment) return [];
  const at = Date.parse(payment.created_at);
  const fits = (!query.has("pos_id") || String(payment.POSID) === String(Number(query.get("pos_id"))))
    && (!query.has("from") || at >= Date.parse(query.get("from"))) && (!query.has("to") || at < Date.parse(query.get("to")));
  return fits ? [payment] : [];
}

async function search({ id, query }) {
  const answers = await Promise.all(instances.map(async (instance) => {
    const listed = ask(inInstance(instance, `payments?${query}`)).then(({ payments }) => payments);
    const found = await Promise.all([listed, id ? byTheId(instance, id, query) : []]);
    return found.flat().map((payment) => ({ ...payment, instance }));
  }));
  const unique = new Map(answers.flat().map((payment) => [payment.id, payment]));
  return [...unique.values()].sort((a, b) => Date.parse(b.created_at) - Date.parse(a.created_at));
}

function make(payment) {
  const button = el("button", { type: "button", className: "primary" }, "Settle…");
  const item = el("li", {}, el("details", { className: "found" },
    el("summary", {}, el("span", { className: "at" }), el("span", { className: "state" }), el("span", { className: "sold" })),
    el("dl", { className: "facts" }), button));
  button.addEventListener("click", () => openSettle(item.payment, () => find()));
  item.payment = payment;
  return item;
}

function stateOf(payment) {
  const { settlement } = payment;
  return settlement ? `settled as ${settlement.outcome} by ${settlement.by}: ${settlement.reason}` : payment.state;
}

function update(item, payment) {
  item.payment = payment;
  say(item.querySelector(".at"), time(payment.created_at));
  say(item.querySelector(".state"), stateOf(payment));
  mark(item.querySelector(".state"), "state", payment.state);
  const where = instances.length > 1 ? `, ${payment.instance}` : "";
  say(item.querySelector(".sold"), `${sale(payment)} at ${place(payment)}${where}`);
  const own = [["Payment id", payment.id], ["Instance", payment.instance]];
  item.querySelector("dl").replaceChildren(...facts(payment), ...own.map(([name, value]) => el("div", { className: "long" }, el("dt", {}, name), el("dd", {}, foreign(value)))));
  item.querySelector("button").hidden = !operates || !TO_SETTLE.includes(payment.state);
}

function show(payments) {
  const more = payments.length >= MOST ? " The newest are shown; narrow the search for older ones." : "";
  say(byId("found-words"), payments.length === 0 ? "No payment found." : `${count(Math.min(payments.length, MOST), "payment")} found.${more}`);
  keep(byId("found"), payments.slice(0, MOST), (payment) => payment.id, make, update);
  const [first] = byId("found").querySelectorAll("details");
  if (payments.length === 1) first.open = true;
}

async function find() {
  round += 1;
  const mine = round;
  say(byId("found-problem"), "");
  try {
    const wanted = queryOf(byId("find"));
    say(byId("found-words"), "Searching");
    const payments = await search(wanted);
    if (mine === round) show(payments);
  } catch (fault) {
    if (mine !== round) return;
    forgetFound();
    say(byId("found-problem"), fault.message);
  }
}

export function prepareFind() {
  byId("find").addEventListener("submit", (event) => {
    event.preventDefault();
    find();
  });
  byId("find").addEventListener("reset", forgetFound);
}

export function forgetFound() {
  round += 1;
  byId("found").replaceChildren();
  for (const id of ["found-words", "found-problem"]) say(byId(id), "");
}
