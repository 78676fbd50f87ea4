// Holds a page to the rules of axe-core: no finding that is serious or critical, but for exceptions listed one by one.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

const axe = readFileSync(new URL("node_modules/axe-core/axe.min.js", import.meta.url), "utf8");

/** `exceptions`: `{ rule, within }`, a rule and the only elements in which it may be broken. Each must still be needed. */
export async function accessible(page, where, exceptions = []) {
  await page.evaluate(`${axe};0`);
  const { violations } = await page.evaluate(() => window.axe.run({ resultTypes: ["violations"] }));
  const serious = violations.filter(({ impact }) => ["serious", "critical"].includes(impact))
    .flatMap(({ id, nodes }) => nodes.map(({ target, html }) => ({ rule: id, target: target.join(" "), html: html.slice(0, 120) })));
  const excepted = await page.evaluate(([found, those]) => found.map(({ rule, target }) => those
    .findIndex((one) => one.rule === rule && document.querySelector(target)?.closest(one.within))), [serious, exceptions]);
  assert.deepEqual(serious.filter((_, index) => excepted[index] < 0), [], `axe: ${where}`);
  exceptions.forEach(({ rule }, index) => assert.ok(excepted.includes(index), `${where}: the exception ${rule} is needed no more`));
}
