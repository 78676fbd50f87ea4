// The dialog that settles a payment of unknown outcome, on the revision of the record that it shows.

import { ask, asText, exact, inInstance } from "./api.js";
import { announce, byId, dateTime, el, foreign, say, zone } from "./dom.js";
import { evidence, linesOf, soldTable } from "./evidence.js";
import { read } from "./exact.js";

let open = null;
let isOpening = false;

const named = (name, id) => (name === undefined ? String(id) : `${name} (${id})`);

function factsOf(payment) {
  const outdated = payment.catalogue_outdated ? "; they may have been out of date" : "";
  return [
    ["Sent", dateTime(payment.dispatched_at ?? payment.created_at)],
    ["Point of sale", named(payment.PointOfSale, payment.POSID)],
    ["Payment method", payment.PaymentMethod === undefined ? "not readable" : named(payment.Payment, payment.PaymentMethod)],
    ["Sum, without deposits", payment.sum ?? "not known"],
    ["Caller", payment.caller],
    ["Key", payment.idempotency_key],
    ...(payment.gateway ? [["Gateway error", payment.gateway.error]] : []),
    ...(payment.catalogue_as_of ? [["Names and prices", `as of ${dateTime(payment.catalogue_as_of)}${outdated}`]] : []),
    ...(payment.sum_missing ? [["Why no sum", payment.sum_missing]] : []),
    ...(payment.state === "unreadable" ? [["Record cannot be read", payment.unreadable.reason], ["Last state", payment.unreadable.last_state ?? "not known"]] : []),
  ];
}

/** The record as it is now: parsed, and as it is spelled. The one of the list, where it cannot be had. */
async function recordOf(payment) {
  try {
    const text = await asText(inInstance(payment.instance, `payments/${encodeURIComponent(payment.id)}`));
    return { payment: { ...JSON.parse(text, exact), instance: payment.instance }, record: read(text), problem: "" };
  } catch (fault) {
    return { payment, record: null, problem: `The record cannot be read now, so its evidence is not shown. ${fault.message}` };
  }
}

export async function openSettle(listed, whenSettled) {
  if (isOpening || byId("settle").open) return;
  isOpening = true;
  const opener = document.activeElement;
  const list = opener.closest("ul");
  const { payment, record, problem } = await recordOf(listed);
  isOpening = false;
  // Signed out meanwhile.
  if (byId("board").hidden) return;
  open = { payment, whenSettled, opener, list, isSettled: false };
  byId("settle-form").reset();
  byId("settle-facts").replaceChildren(...factsOf(payment).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, foreign(value)))));
  byId("settle-sold").replaceChildren(...(record ? [soldTable(linesOf(record))] : []));
  say(byId("settle-zone"), `Times are local: ${zone}.`);
  byId("settle-evidence").replaceChildren(...evidence(payment, record));
  say(byId("settle-problem"), problem);
  byId("settle").showModal();
  // A dialog focuses its first field, which may be far down.
  byId("settle-heading").focus();
  byId("settle").scrollTop = 0;
}

function wordsOf(fault) {
  if (fault.status === 412 || fault.code === "outcome-conflict") {
    return "This payment has changed since you opened it. Close this dialog and open it again before you decide.";
  }
  return fault.message;
}

async function decide(form) {
  const outcome = form.elements.outcome.value;
  const reason = form.elements.reason.value.trim();
  if (!outcome || !reason) {
    say(byId("settle-problem"), outcome ? "Give a reason." : "Choose what you found.");
    (outcome ? byId("reason") : form.elements.outcome[0]).focus();
    return;
  }
  const { payment, whenSettled } = open;
  const path = inInstance(payment.instance, `payments/${encodeURIComponent(payment.id)}/outcome`);
  await ask(path, { method: "PUT", body: { outcome, reason }, more: { "If-Match": `"${payment.revision}"` } });
  open.isSettled = true;
  whenSettled();
  byId("settle").close();
  const said = outcome === "booked" ? "booked" : "not booked";
  announce(`The payment is settled as ${said}.`);
}

/** Focus goes back to where it came from; from a payment that leaves the list, to the one after it. */
function returnFocus() {
  if (byId("board").hidden || !open) return;
  const { opener, list, isSettled } = open;
  const buttons = [...(list?.querySelectorAll("button") ?? [])].filter((button) => button.checkVisibility());
  const at = buttons.indexOf(opener);
  const isThere = opener.isConnected && opener.checkVisibility();
  const next = isSettled || !isThere ? buttons[at + 1] ?? buttons[at - 1] : opener;
  (next ?? byId("content")).focus();
}

export function prepareSettle(changed) {
  byId("settle").addEventListener("close", returnFocus);
  byId("settle-form").addEventListener("input", () => say(byId("settle-problem"), ""));
  byId("settle-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = event.target.querySelector("[type=submit]");
    if (button.disabled) return;
    button.disabled = true;
    try {
      await decide(event.target);
      changed();
    } catch (fault) {
      byId("settle-problem").replaceChildren(foreign(wordsOf(fault)));
    } finally {
      button.disabled = false;
    }
  });
}
