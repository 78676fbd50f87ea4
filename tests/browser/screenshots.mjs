// Makes the pictures of the README: the dashboard's page, its dialog and its wall view.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { NAMES, launch, open, stage, until } from "./stage.mjs";

const [program, folder] = process.argv.slice(2);
mkdirSync(folder, { recursive: true });
const set = await stage(program);
const browser = await launch();
const picture = (page, name) => page.screenshot({ path: join(folder, `${name}.png`) });
try {
  for (const path of ["config", "version", "points-of-sale", "points-of-sale/1/products", "points-of-sale/1/payment-methods"]) await set.one.read(`instances/demo/${path}`);
  for (const instance of NAMES) for (const path of ["deposit", "points-of-sale"]) await set.many.read(`instances/${instance}/${path}`);
  await set.one.sellUnknown("demo", "till-7-order-12");
  for (const instance of NAMES.slice(2, 5)) await set.many.sellUnknown(instance, `till-3-${instance}`);
  const page = await open(browser, set.one.base, { width: 1280, height: 860 });
  const wall = await open(browser, set.many.base, { width: 1920, height: 1080, dark: true, path: "/#wall" });
  await wall.locator("#wall-unsettled-list li").nth(2).waitFor();
  let sold = 0;
  const measured = async (shown) => /^\d/.test(await shown.locator("#rate-sold dd").first().textContent());
  await until("rates", async () => {
    sold += 1;
    await Promise.all([set.one.sell("demo", `sold-${sold}`), set.many.sell(NAMES[sold % NAMES.length], `sold-${sold}`)]);
    return sold > 60 && await measured(page) && await measured(wall);
  });
  await page.locator("#unsettled .payment").first().waitFor();
  await picture(page, "page");
  await picture(wall, "wall");
  await page.locator("#unsettled button").first().click();
  await page.locator("dialog[open]").waitFor();
  await picture(page, "dialog");
} finally {
  await browser.close();
  await set.end();
}
