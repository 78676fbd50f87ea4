// The transactions that may be a payment of unknown outcome, beside the sale: what agrees, and what differs.

import { count, dateTime, duration, el, foreign, instant } from "./dom.js";
import { same, shown, times } from "./exact.js";

/** So much before the sale a transaction may seem to be, by clocks that disagree. */
const CLOCKS_DIFFER_S = 60;
const COLUMNS = ["Transaction", "Time", "Product", "Amount", "Money", "Compared with the sale"];

const NUMBERS = ["Amount", "Price", "Money"];

/** The lines of the sale, by product: how many, at which price, for how much. */
export function linesOf(record) {
  const lines = record?.members.get("Products")?.items ?? [];
  return lines.map(({ members }) => {
    const [id, amount, name, price] = ["ID", "Amount", "ProductName", "Price"].map((member) => shown(members.get(member)));
    return { id, amount, name: name ?? `Product ${id}`, price, money: times(price, amount) };
  });
}

/** The lines of the sale as a table. */
export function soldTable(lines) {
  return table("What was sold", ["Product", "Amount", "Price", "Money"],
    lines.map((line) => [`${line.name} (${line.id})`, line.amount, line.price ?? "not known", line.money ?? "not known"]
      .map((text, column) => cell(text, column > 0))));
}

/** How long after the payment was sent, in words. */
function later(seconds) {
  return seconds < 0 ? `${duration(-seconds)} before it was sent` : `${duration(seconds)} after it was sent`;
}

function candidate(clue, lines, sale) {
  const { members } = clue.members.get("transaction");
  const of = (name) => shown(members.get(name));
  const line = lines.find((line) => same(line.id, of("Product_ID")));
  const at = instant(of("timestamp"));
  const differences = [];
  const differs = (name, found, expected) => {
    const does = expected !== null && expected !== undefined && !same(String(found), String(expected));
    if (does) differences.push(`${name}: ${found ?? "none"} instead of ${expected}`);
    return does;
  };
  const pos = differs("point of sale", of("PointOfSaleID"), sale.POSID);
  const method = differs("payment method", of("Payment_ID"), sale.PaymentMethod);
  const product = !line;
  if (product) differences.push("a product that was not sold");
  const amount = differs("amount", of("AmountProduct"), line?.amount);
  const money = differs("money", of("AmountMoney"), line?.money);
  // A time without a zone is one of the gateway's clock, and is compared by a person.
  const seconds = at ? Math.round((at - Date.parse(sale.dispatched_at ?? sale.created_at)) / 1000) : null;
  const earlier = seconds !== null && seconds < -CLOCKS_DIFFER_S;
  if (earlier) differences.push(`time: ${later(seconds)}`);
  const others = Number(shown(clue.members.get("other_payments")));
  const words = [
    ...differences,
    ...(differences.length ? [] : ["nothing differs"]),
    ...(seconds === null || earlier ? [] : [later(seconds)]),
    ...(others ? [`${count(others, "other payment")} could explain it too`] : []),
    ...(of("Note") ? [`note: ${of("Note")}`] : []),
  ];
  return [
    cell(of("ID") ?? "–", false, pos || method),
    cell(at ? dateTime(at) : `${of("timestamp") ?? "not known"} (gateway's clock)`, false, earlier),
    cell(line ? `${line.name} (${line.id})` : `Product ${of("Product_ID")}`, false, product),
    cell(of("AmountProduct") ?? "–", true, amount),
    cell(of("AmountMoney") ?? "–", true, money),
    el("td", {}, foreign(words.join("; "))),
  ];
}

function cell(text, isNumber = false, differs = false) {
  return el("td", { className: [isNumber && "number", differs && "differs"].filter(Boolean).join(" ") }, foreign(text));
}

function table(title, columns, rows) {
  const scrolls = { className: "scrolls", tabindex: "0", role: "region", "aria-label": title };
  return el("div", scrolls, el("table", {}, el("caption", {}, title),
    el("thead", {}, el("tr", {}, ...columns.map((name) => el("th", { scope: "col", className: NUMBERS.includes(name) && "number" }, name)))),
    el("tbody", {}, ...rows.map((cells) => el("tr", {}, ...cells)))));
}

/** What the gateway's transactions tell of a payment, given as parsed and as it is spelled. */
export function evidence(payment, record) {
  const found = payment.evidence;
  if (!found || !record) return [];
  const clues = record.members.get("evidence").members.get("transactions").items;
  const lines = linesOf(record);
  const unmatched = lines.filter((line) => !clues.some((clue) =>
    same(shown(clue.members.get("transaction").members.get("Product_ID")), line.id)));
  const words = clues.length === 0
    ? "The bridge found no matching transaction. This proves nothing while the search is incomplete."
    : `${count(clues.length, "transaction")} at the gateway may be this payment. Another till may have sold the same.`;
  const search = `${count(found.looks, "search", "searches")}, the last one at ${dateTime(found.last_look_at)}; it ${found.complete ? "reached back to before the payment was sent" : "did not reach back far enough"}.`;
  const sources = clues.map((clue) => clue.members.get("transaction").source);
  return [
    el("h3", {}, "Evidence"),
    el("p", {}, words),
    el("p", { className: "muted" }, search),
    ...(clues.length ? [table("Transactions that may be this payment", COLUMNS, clues.map((clue) => candidate(clue, lines, payment)))] : []),
    ...(clues.length && unmatched.length ? [el("p", { className: "warning" }, "No transaction for: ", foreign(unmatched.map((line) => line.name).join(", ")), ".")] : []),
    ...(clues.length ? [el("details", {}, el("summary", {}, "As the gateway sent them (JSON)"),
      el("pre", { tabindex: "0" }, foreign(sources.join("\n"))))] : []),
  ];
}
