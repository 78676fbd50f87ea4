// How much of the list of problems is shown at once: the gravest, and on demand the rest.

import { byId, count, say } from "./dom.js";

/** So many are shown before the rest is folded. */
const MOST = 6;
let all = false;

const items = () => [...byId("attention-list").children];

/** The number of things that need attention. */
export const wrong = () => items().filter((item) => item.dataset.grade !== "info").length;

/** Folds the list: to what `fits` leaves of it on the wall view, else to the first few. */
export function foldFindings(fits) {
  const [list, more] = [items(), byId("attention-more")];
  for (const item of list) item.hidden = false;
  more.hidden = true;
  if (fits) {
    fits(list, more);
    return;
  }
  more.hidden = list.length <= MOST;
  say(more, all ? "Show fewer" : `Show ${count(list.length - MOST, "more problem")}`);
  more.setAttribute("aria-expanded", String(all));
  if (!all) for (const item of list.slice(MOST)) item.hidden = true;
}

export function prepareFindings() {
  byId("attention-more").addEventListener("click", () => {
    all = !all;
    foldFindings();
  });
}
