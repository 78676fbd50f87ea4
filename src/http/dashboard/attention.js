// The list of problems of all instances at the top of the page, and the figures beside it.

import { announce, byId, bytes, count, el, keep, mark, say } from "./dom.js";
import { standing } from "./shards.js";

let known = null;

/** All problems, the gravest first. */
export function findings(status) {
  const found = [];
  const many = status.instances.length > 1;
  const add = (grade, key, text) => found.push({ grade, key, text });
  if (status.state === "draining") add("grave", "draining", "The bridge is stopping: it accepts nothing new.");
  if (status.whole && !status.payments) add("grave", "journal", "The journal cannot be read: no payment can be made.");
  const unknown = status.payments?.unknown ?? 0;
  if (unknown > 0) add("grave", "unknown", `${count(unknown, "payment")} of unknown outcome: settle ${unknown === 1 ? "it" : "them"}.`);
  const unreadable = status.payments?.unreadable ?? 0;
  if (unreadable > 0) add("grave", "unreadable", `${count(unreadable, "record of a payment", "records of payments")} cannot be read: settle ${unreadable === 1 ? "it" : "them"}.`);
  for (const instance of status.instances) {
    const of = many ? ` for ${instance.instance}` : "";
    const linked = instance.shards.filter((shard) => shard.links.some((link) => link.state !== "set-aside"));
    if (linked.length === 0) add("grave", `${instance.instance} links`, `No link to the gateway${of}: nothing can be sold; old replies are still served.`);
    else if (linked.length === 1) add("warn", `${instance.instance} one`, `Only ${linked[0].shard} has links${of}: if it fails, broadcasts are missed.`);
    for (const shard of instance.shards) {
      const [sign] = standing(shard);
      const key = `${instance.instance} ${shard.shard}`;
      if (sign === "down") add("warn", key, `${shard.shard} could not be reached${of} when it was last tried.`);
      if (sign === "lost") add("warn", key, `${shard.shard} lost its links${of} and has not been tried yet.`);
      if (sign === "warn") add("warn", key, `${shard.shard} is failing${of}: new links cannot be opened.`);
      if (sign === "out") add("info", key, `${shard.shard} is taken out by hand${of}.`);
    }
    if (instance.contradictions > 0) add("grave", `${instance.instance} contradictions`, `The gateway contradicted the record of a payment${of}, ${count(instance.contradictions, "time")} since the start: look for “contradicts the record” in the log.`);
    const closed = instance.budgets.filter((window) => window.closed_for_ms > 0).map((window) => window.command);
    if (closed.length) add("warn", `${instance.instance} budget`, `The gateway closed commands for a while${of}: ${closed.join(", ")}.`);
  }
  return found.filter((one) => one.grade === "grave").concat(found.filter((one) => one.grade !== "grave"));
}

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
