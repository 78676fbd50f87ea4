// A line over time, drawn as an SVG.

import { shape } from "./dom.js";

const HEIGHT = 20;

/** Draws `shares`, each from 0 to 1 and the newest last, into a chart of `length` values. */
export function draw(svg, shares, length) {
  svg.setAttribute("viewBox", `0 0 ${length} ${HEIGHT}`);
  svg.replaceChildren();
  if (shares.length < 2) return;
  const first = length - shares.length;
  const points = shares.map((share, index) => `${first + index},${(HEIGHT - 1 - share * (HEIGHT - 2)).toFixed(1)}`).join(" ");
  shape(svg, "polygon", { points: `${first},${HEIGHT} ${points} ${length - 1},${HEIGHT}`, class: "area" });
  shape(svg, "polyline", { points, class: "stroke" });
}
