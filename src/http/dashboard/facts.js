// The fields of one payment, for lists.

import { el, foreign, time } from "./dom.js";

/** The products of a sale, as text. */
export const sale = (payment) => payment.Products?.map((line) => `${line.Amount} × ${line.ProductName ?? `product ${line.ID}`}`).join(", ") ?? "A sale that cannot be read";

/** The place of a sale, as text; a number stays on the line of its words. */
export const place = (payment) => payment.PointOfSale ?? `point of sale\u00a0${payment.POSID}`;

function factsOf(payment) {
  const evidence = payment.evidence?.transactions?.length ?? 0;
  return [
    ["Sent", time(payment.dispatched_at ?? payment.created_at)],
    ["Sale", sale(payment)],
    ["Point of sale", payment.PointOfSale ? `${payment.PointOfSale} (${payment.POSID})` : payment.POSID],
    ["Payment method", payment.Payment ?? payment.PaymentMethod ?? "not readable"],
    ...(payment.sum ? [["Sum", payment.sum]] : []),
    ["Caller", payment.caller],
    ["Key", payment.idempotency_key],
    ...(payment.gateway ? [["Gateway error", payment.gateway.error]] : []),
    ...(payment.state === "unreadable" ? [["Record cannot be read", payment.unreadable.reason], ["Last state", payment.unreadable.last_state ?? "not known"]] : []),
    ...(payment.evidence ? [["Matching transactions", evidence === 0 ? "none found so far" : evidence]] : []),
  ];
}

/** A payment as a list of facts, each in two columns. */
export const facts = (payment) => factsOf(payment).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, foreign(value))));
