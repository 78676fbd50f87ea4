// How many sales are booked and how many are refused a minute, from the counts of payments by state.

import { draw } from "./chart.js";
import { byId, duration, mark, say, trend } from "./dom.js";

const MINUTE_MS = 60_000;
/** How long counts are kept, and how much of it one point of the chart stands for. */
const HISTORY_MS = 5 * MINUTE_MS;
const STEP_MS = 5000;
/** A rate is shown once it stands on so much time. */
const LEAST_MS = 10_000;
const STEPS = HISTORY_MS / STEP_MS;

let samples = [];

/** What has been sold and refused so far; counts only rise, but for records that reach their age. */
const counted = (payments) => ({ sold: payments.booked + payments.settled, refused: payments.released });

/** How much `name` rose between two times; what happened between two samples is spread over that time. */
function risen(name, from, to) {
  let sum = 0;
  for (let index = 1; index < samples.length; index += 1) {
    const [before, after] = [samples[index - 1], samples[index]];
    const overlap = Math.min(to, after.at) - Math.max(from, before.at);
    if (overlap > 0) sum += Math.max(0, after[name] - before[name]) * (overlap / (after.at - before.at));
  }
  return sum;
}

/** The rise of each step of the chart that has been seen. */
function steps(name, now) {
  const seen = Math.min(STEPS, Math.floor((now - samples[0].at) / STEP_MS));
  return Array.from({ length: seen }, (_, index) => {
    const from = now - (seen - index) * STEP_MS;
    return risen(name, from, from + STEP_MS);
  });
}

function words(perMinute) {
  return perMinute > 0 && perMinute < 10 ? String(Number(perMinute.toFixed(1))) : String(Math.round(perMinute));
}

function show(name, now) {
  const box = byId(`rate-${name}`);
  const [figure, note, chart] = box.querySelectorAll("dd");
  const span = now - samples[0].at;
  if (span < LEAST_MS) {
    say(figure, "–");
    say(note, "measuring");
    return;
  }
  const lately = Math.min(span, MINUTE_MS);
  say(figure, words((risen(name, now - lately, now) * MINUTE_MS) / lately));
  const total = Math.round(risen(name, now - HISTORY_MS, now));
  say(note, `${total} in ${duration(Math.min(span, HISTORY_MS) / 1000)}`);
  mark(box, "grade", name === "refused" && total > 0 ? "warn" : "well");
  const values = steps(name, now);
  const most = Math.max(1, ...values);
  draw(chart.firstElementChild ?? chart.appendChild(trend("line")), values.map((value) => value / most), STEPS);
}

/** Adds the counts of this moment. */
export function showRates(status) {
  for (const name of ["sold", "refused"]) byId(`rate-${name}`).hidden = !status.payments;
  if (!status.payments) return;
  const now = Date.now();
  samples.push({ at: now, ...counted(status.payments) });
  samples = samples.filter((sample, index) => sample.at >= now - HISTORY_MS || samples[index + 1]?.at >= now - HISTORY_MS);
  for (const name of ["sold", "refused"]) show(name, now);
}

export function forgetRates() {
  samples = [];
  for (const name of ["sold", "refused"]) {
    for (const part of byId(`rate-${name}`).querySelectorAll("dd")) part.replaceChildren();
  }
}
