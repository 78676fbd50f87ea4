// The dialog that settles a payment of unknown outcome, on the revision of the record that it shows.

import { ask, inInstance } from "./api.js";
import { announce, byId, count, el, foreign, say } from "./dom.js";
import { facts } from "./facts.js";

let open = null;

/** A title for a transaction, with the gateway's values; the whole transaction follows below it. */
function titleOf(transaction) {
  const { ID: id, timestamp, AmountMoney: money } = transaction;
  const known = [id !== undefined && `Transaction ${id}`, timestamp && `of ${timestamp}`, money && `for ${money}`];
  return known.filter(Boolean).join(" ") || "A transaction";
}

function evidence(payment) {
  const found = payment.evidence;
  if (!found) return [];
  const clues = found.transactions ?? [];
  const words = clues.length === 0
    ? "The bridge found no matching transaction. This proves nothing while the search is incomplete."
    : `${count(clues.length, "transaction")} at the gateway may be this payment. Another till may have sold the same.`;
  const lines = clues.map((clue) => el("li", {}, foreign(titleOf(clue.transaction)),
    clue.other_payments ? ` – ${count(clue.other_payments, "other payment")} could explain it too` : "",
    el("code", { className: "foreign" }, JSON.stringify(clue.transaction))));
  return [el("h3", {}, "Evidence"), el("p", {}, words), el("p", { className: "muted" },
    `${count(found.looks, "search", "searches")}; the last one ${found.complete ? "reached back to before the payment was sent" : "did not reach back far enough"}.`),
  el("ul", {}, ...lines)];
}

export function openSettle(payment, whenSettled) {
  open = { payment, whenSettled };
  byId("settle-form").reset();
  byId("settle-facts").replaceChildren(...facts(payment));
  byId("settle-evidence").replaceChildren(...evidence(payment));
  say(byId("settle-problem"), "");
  byId("settle").showModal();
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
  whenSettled();
  byId("settle").close();
  const said = outcome === "booked" ? "booked" : "not booked";
  announce(`The payment is settled as ${said}.`);
}

export function prepareSettle(changed) {
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
