// Holds the dashboard to what it promises on a phone, on a desktop and on a wall, and to what a person looks for in it.
import assert from "node:assert/strict";
import { accessible } from "./accessible.mjs";
import { LONG_NAME, NAMES, PATIENCE_MS, TOKEN, launch, open, stage, until } from "./stage.mjs";

const PHONE = { width: 320, height: 640 };
const DESK = { width: 1280, height: 900 };
const WALL = { width: 1920, height: 1080, path: "/#wall" };

/** Words that are broken over two lines, though their line would hold them. Runs in the page. */
function broken() {
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode;
    if (!node.parentElement.checkVisibility() || node.parentElement.closest(".unseen, select")) continue;
    for (const word of node.data.matchAll(/[^\s-]+/g)) {
      const range = document.createRange();
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      const lines = new Set([...range.getClientRects()].map((box) => Math.round(box.top)));
      if (lines.size > 1) found.push(word[0]);
    }
  }
  return found;
}

/** What of these parts is not seen whole: outside of the window, or cut off by a box around it. Runs in the page. */
function unseen(selectors) {
  const cut = (element) => {
    const box = element.getBoundingClientRect();
    if (box.width === 0 || box.height === 0 || box.left < 0 || box.top < 0 || box.right > innerWidth || box.bottom > innerHeight) return true;
    for (let around = element.parentElement; around; around = around.parentElement) {
      if (getComputedStyle(around).overflow === "visible") continue;
      const edge = around.getBoundingClientRect();
      if (box.right > edge.right + 1 || box.bottom > edge.bottom + 1 || box.left < edge.left - 1) return true;
    }
    return false;
  };
  return selectors.flatMap((selector) => [...document.querySelectorAll(selector)].filter(cut).map((element) => `${selector}: ${element.textContent}`));
}

/** Holds the page to axe by day and by night. */
async function readable(page, where) {
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    await accessible(page, `${where}, ${colorScheme}`);
  }
}

const numbers = async (page, selector) => (await page.locator(selector).allTextContents()).map((text) => Number.parseInt(text, 10));

async function onAPhone(browser, { one, many }) {
  const page = await open(browser, many.base, { ...PHONE, dark: true });
  await page.locator("#instance").selectOption(LONG_NAME);
  await page.locator("#unsettled").getByText(LONG_NAME).first().waitFor();
  await page.getByLabel("Key or payment id").fill("till-2-order-3");
  await page.getByRole("button", { name: "Find" }).click();
  await page.locator("#found .long").getByText(LONG_NAME).waitFor();
  await page.getByText("Recent payments").click();
  await page.locator("#recent-rows tr").first().waitFor();
  await page.getByText("with a full budget").click();
  const width = () => page.evaluate(() => document.documentElement.scrollWidth);
  assert.equal(await width(), PHONE.width, "the page scrolls sideways with a long name");
  assert.deepEqual(await page.evaluate(broken), [], "words are broken");
  await readable(page, "phone");
  await page.locator("#unsettled button").first().click();
  await page.locator("#settle").waitFor();
  assert.ok(await page.locator("#settle").evaluate((dialog) => dialog.scrollWidth <= dialog.clientWidth), "the dialog scrolls sideways");
  await readable(page, "dialog on a phone");
  assert.deepEqual(page.faults, []);
  await page.context().close();
  const single = await open(browser, one.base, { ...PHONE });
  await single.locator("#unsettled .payment").first().waitFor();
  assert.deepEqual(await single.evaluate(broken), [], "words are broken, of one instance");
  await single.context().close();
}

async function budgets(browser, { one }) {
  for (const path of ["config", "version", "points-of-sale", "deposit"]) await one.read(`instances/demo/${path}`);
  const page = await open(browser, one.base, DESK);
  await page.locator("#budget-rows .budget").nth(3).waitFor();
  const left = await numbers(page, "#budget-rows .numbers");
  assert.deepEqual(left, [...left].sort((a, b) => a - b), "the least left is not first");
  assert.ok(left.every((points) => points < 100), "a full budget is among those to look at");
  assert.ok(left[0] < left.at(-1), `all are the same: ${left}`);
  const full = page.locator("#budget-full");
  assert.equal(await full.locator(".budget").first().isVisible(), false, "full budgets are not folded");
  await full.locator("summary").click();
  assert.ok((await numbers(page, "#budget-full-rows .numbers")).every((points) => points === 100));
  await readable(page, "desktop");
  const all = await page.locator(".budget").count();
  assert.equal(all, (await one.read("bridge")).instances[0].budgets.length, "a budget is missing");
  await page.context().close();
}

async function onAWall(browser, bridge, names, unsettled) {
  const page = await open(browser, bridge.base, WALL);
  const list = page.locator("#wall-unsettled-list li");
  await until("every unsettled payment on the wall", async () => await list.count() === unsettled);
  await page.locator("#wall-list .place").nth(names.length - 1).waitFor();
  const scrolls = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.scrollHeight]);
  assert.deepEqual(scrolls, [WALL.width, WALL.height], "the wall scrolls");
  const shown = await page.locator("#wall-list .place h3").allTextContents();
  assert.deepEqual(shown, [...names].sort(), "an instance is missing, or out of its place");
  for (const { instance, shards } of (await bridge.read("bridge")).instances) {
    const place = page.locator("#wall-list .place", { has: page.getByRole("heading", { name: instance, exact: true }) });
    assert.deepEqual(await place.locator(".wall-shards b").allTextContents(), shards.map(({ shard }) => shard), instance);
    assert.ok(await place.locator(".wall-budgets li, .wall-budgets p:not(:empty)").count() > 0, `${instance} shows no budget`);
  }
  const parts = ["#attention-heading", "#rate-sold", "#rate-refused", ".place h3", ".wall-shards li", ".wall-budgets li", "#wall-unsettled-list li", ".open-payments:not(:empty)"];
  assert.deepEqual(await page.evaluate(unseen, names.length === 1 ? parts.slice(0, -1) : parts), [], "parts of the wall are not seen");
  const cutNames = await page.locator(".place h3").evaluateAll((names) => names.filter((name) => name.scrollHeight > name.clientHeight + 1).map((name) => name.textContent));
  assert.deepEqual(cutNames, [], "names are cut off");
  assert.equal(await page.locator("#shards").isVisible(), false, "the wall shows the parts of the full page");
  await readable(page, `wall of ${names.length}`);
  // What the bridge judges of an instance is seen at its place, though its links and budgets are well.
  const calm = page.locator("#wall-list .place[data-grade=well] h3").last();
  if (names.length > 1) {
    const instance = await calm.textContent();
    await page.route("**/v1/bridge", async (route) => {
      const answer = await route.fetch();
      const status = await answer.json();
      status.attention.push({ code: "gateway-credentials", severity: "critical", instance, words: "The gateway refuses the API key." });
      await route.fulfill({ response: answer, json: status });
    });
    const place = page.locator("#wall-list .place", { has: page.getByRole("heading", { name: instance, exact: true }) });
    await until("the finding at its place", async () => await place.getAttribute("data-grade") === "bad");
    await page.unroute("**/v1/bridge");
  }
  await page.getByRole("link", { name: "Full page" }).click();
  await page.locator("#shards").waitFor();
  await page.getByRole("link", { name: "Wall" }).click();
  await page.locator("#wall-view").waitFor();
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

async function titleAndRates(browser, { one }) {
  const page = await open(browser, one.base, DESK);
  let title;
  await until("the count in the title", async () => (title = await page.title()) === "(1) ConcertPOS bridge", () => title);
  const figure = (name) => page.locator(`#rate-${name} dd`).first();
  // As the bridge counts them: a sale that is refused for want of points has no record.
  let refused = 0;
  await page.route("**/v1/bridge", async (route) => {
    const answer = await route.fetch();
    const status = await answer.json();
    status.instances[0].last_minute.sales_refused = refused;
    await route.fulfill({ response: answer, json: status });
  });
  for (let index = 0; index < 6; index += 1) await one.sell("demo", `rate-${index}`);
  await until("the sales", async () => Number(await figure("sold").textContent()) >= 6);
  await until("no refusal", async () => await figure("refused").textContent() === "0");
  refused = 1121;
  await until("the refusals", async () => await figure("refused").textContent() === "1,121");
  assert.equal(await page.locator("#rate-refused .muted").textContent(), "most in 5 min: 1,121");
  await page.unroute("**/v1/bridge");
  await page.locator("#rate-sold svg polyline").waitFor({ state: "attached" });
  await page.context().close();
}

async function search(browser, { many }) {
  const page = await open(browser, many.base, DESK);
  const records = await many.read(`instances/${NAMES[0]}/payments`);
  const wanted = records.payments.find(({ idempotency_key: key }) => key === "till-2-order-0");
  const form = page.locator("#find");
  const find = async (fields, words) => {
    await form.getByRole("button", { name: "Clear" }).click();
    for (const [label, value] of Object.entries(fields)) await form.getByLabel(label, { exact: true }).fill(value);
    await form.getByRole("button", { name: "Find" }).click();
    await page.locator("#found-words, #found-problem").getByText(words).waitFor();
    return page.locator("#found details").evaluateAll((items) => items.map((item) => item.querySelector("dl").textContent));
  };
  const is = (texts) => assert.ok(texts.length === 1 && texts[0].includes("till-2-order-0") && texts[0].includes(wanted.id), texts.join("\n"));
  is(await find({ "Key or payment id": "till-2-order-0" }, "1 payment found."));
  is(await find({ "Key or payment id": wanted.id }, "1 payment found."));
  assert.equal(await page.locator("#found").getByRole("button", { name: "Settle…" }).isVisible(), true, "what is found cannot be settled");
  assert.equal((await find({ "Key or payment id": wanted.id, "Point of sale": "2" }, "No payment found.")).length, 0);
  is(await find({ "Key or payment id": "till-2-order-0", "Point of sale": "1" }, "1 payment found."));
  assert.ok((await find({ "Point of sale": "7" }, "1 payment found."))[0].includes("at-the-locked-one"));
  const local = (ms) => new Date(ms - new Date(ms).getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
  const at = Date.parse(wanted.created_at);
  const around = { From: local(at - 1000), To: local(at + 2000) };
  const ids = await find(around, "found.");
  assert.ok(ids.some((text) => text.includes(wanted.id)), "not found by its time");
  assert.equal((await find({ From: local(at - 7_200_000), To: local(at - 3_600_000) }, "No payment found.")).length, 0);
  assert.equal((await find({ From: local(at + 3_600_000) }, "No payment found.")).length, 0, "the start is ignored");
  await find({ From: around.To, To: around.From }, "The end lies before the start.");
  await find({}, "Give a key");
  await find({ "Point of sale": "bar" }, "The point of sale is a number.");
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

async function signIn(browser, { one }) {
  const page = await browser.newPage({ viewport: PHONE });
  await page.goto(`${one.base}/`);
  const field = page.getByLabel("Token", { exact: true });
  await field.waitFor();
  const form = await page.locator("#sign-in-form").evaluate((form) => [...form.elements].filter((one) => one.autocomplete)
    .map((one) => [one.autocomplete, one.type, one.checkVisibility()]));
  assert.deepEqual(form, [["username", "text", true], ["current-password", "password", true]], "no form for a password manager");
  await readable(page, "sign-in");
  await field.fill("wrong-token");
  await page.getByRole("button", { name: "Show token" }).click();
  assert.equal(await field.getAttribute("type"), "text", "what was typed is not revealed");
  await page.getByRole("button", { name: "Hide token" }).click();
  assert.equal(await field.getAttribute("type"), "password");
  await page.getByRole("button", { name: "Show token" }).click();
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByText("does not know this token").waitFor();
  assert.deepEqual([await field.getAttribute("type"), await field.inputValue()], ["password", "wrong-token"], "what a person wants to correct is gone, or in the open");
  await field.fill(TOKEN);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.locator("#board").waitFor({ timeout: PATIENCE_MS });
  assert.equal(await field.inputValue(), "", "the token stays in the form");
  await page.close();
}

const set = await stage(process.argv[2]);
const browser = await launch();
try {
  const quiet = await open(browser, set.one.base, DESK);
  await until("all is well", async () => await quiet.locator("#attention-heading").textContent() === "All is well");
  assert.equal(await quiet.title(), "ConcertPOS bridge", "a title with a count, and nothing is wrong");
  await quiet.context().close();
  await signIn(browser, set);
  for (let index = 0; index < 4; index += 1) {
    await set.one.sellUnknown("demo", `till-1-order-${index}`);
    await set.many.sellUnknown(NAMES[[0, 3, 11, 7][index]], `till-2-order-${index}`);
  }
  await set.many.sellRefused(NAMES[0], "at-the-locked-one");
  await onAPhone(browser, set);
  await budgets(browser, set);
  await onAWall(browser, set.one, ["demo"], 4);
  await onAWall(browser, set.many, NAMES, 4);
  await search(browser, set);
  await titleAndRates(browser, set);
  console.log("the dashboard fits a phone, a desktop and a wall, and finds payments");
} finally {
  await browser.close();
  await set.end();
}
