// How many sales were booked and how many refused within the last minute, as the bridge counts them, and how that was before.

import { draw } from "./chart.js";
import { byId, mark, say, trend } from "./dom.js";

/** How much of the history one point of the chart stands for, and how many of them are kept. */
const STEP_MS = 5000;
const STEPS = 60;

const NAMES = { sold: "sales_booked", refused: "sales_refused" };

/** For each of the two, the figure at the end of each step, the newest last. */
let history = {};
let lastStep = 0;

function keep(name, figure, passed) {
  const before = history[name] ?? [];
  const missed = Array.from({ length: Math.min(passed - 1, STEPS) }, () => before.at(-1) ?? figure);
  history[name] = (passed > 0 ? [...before, ...missed] : before.slice(0, -1)).concat(figure).slice(-STEPS);
  return history[name];
}

function show(name, figures) {
  const box = byId(`rate-${name}`);
  const [figure, note, chart] = box.querySelectorAll("dd");
  const most = Math.max(...figures);
  say(figure, figures.at(-1).toLocaleString("en"));
  say(note, `most in 5 min: ${most.toLocaleString("en")}`);
  mark(box, "grade", name === "refused" && most > 0 ? "warn" : "well");
  draw(chart.firstElementChild ?? chart.appendChild(trend("line")), figures.map((one) => one / Math.max(1, most)), STEPS);
}

/** Shows the counts of this moment. */
export function showRates(status) {
  const step = Math.floor(Date.now() / STEP_MS);
  const passed = lastStep === 0 ? 1 : Math.max(0, step - lastStep);
  lastStep = Math.max(step, lastStep);
  for (const [name, counted] of Object.entries(NAMES)) {
    const figure = status.instances.reduce((sum, instance) => sum + instance.last_minute[counted], 0);
    show(name, keep(name, figure, passed));
  }
}

export function forgetRates() {
  [history, lastStep] = [{}, 0];
  for (const name of Object.keys(NAMES)) {
    for (const part of byId(`rate-${name}`).querySelectorAll("dd")) part.replaceChildren();
  }
}
