// The list of problems of all instances at the top of the page, and the figures beside it.

import { announce, byId, bytes, count, el, keep, mark, say, time } from "./dom.js";

let known = null;

const GRADES = { critical: "grave", warning: "warn", info: "info" };

/** All problems, the gravest first: the bridge judges, the page shows. */
export const findings = (status) => status.attention.map(({ code, severity, instance, subject, words, since }) => ({
  grade: GRADES[severity] ?? "warn",
  key: [code, instance ?? "", subject ?? ""].join(" "),
  text: since ? `${words} Since ${time(since)}.` : words,
}));

export function showAttention(status) {
  const found = findings(status);
  const grave = found.some((one) => one.grade === "grave");
  const wrong = found.filter((one) => one.grade !== "info").length;
  mark(byId("attention"), "grade", grave ? "grave" : wrong ? "warn" : "well");
  say(byId("attention-heading"), wrong ? `${count(wrong, "thing needs", "things need")} attention` : "All is well");
  keep(byId("attention-list"), found, (one) => one.key, () => el("li"), (line, one) => {
    say(line, one.text);
    mark(line, "grade", one.grade);
  });
  // Announce changes only, and nothing at the first update.
  const now = new Map(found.map((one) => [one.key, one.text]));
  if (known) {
    const news = [...now].filter(([key]) => !known.has(key)).map(([, text]) => text);
    const over = [...known.keys()].filter((key) => !now.has(key));
    if (news.length) announce(news.join(" "));
    else if (over.length) announce(now.size === 0 ? "All is well again." : "One problem is over.");
  }
  known = now;
}

export function showFigures(status) {
  const counts = status.payments;
  const under = counts ? counts.dispatching + counts.reserved : 0;
  say(byId("figure-unknown"), counts ? String(counts.unknown) : "–");
  const untold = status.whole ? "journal not readable" : "needs a token for every instance";
  say(byId("figure-unknown-note"), counts ? `${under} under way` : untold);
  mark(byId("figure-unknown").parentElement, "grade", counts?.unknown ? "grave" : "well");
  say(byId("figure-booked"), counts ? String(counts.booked) : "–");
  say(byId("figure-booked-note"), counts ? `${counts.settled} settled by hand` : "");
  say(byId("figure-copies"), status.cache ? String(status.cache.copies) : "–");
  say(byId("figure-copies-note"), status.cache ? bytes(status.cache.bytes) : "");
  say(byId("figure-subscribers"), status.whole ? String(status.subscribers) : "–");
}

export function forgetAttention() {
  known = null;
}
