// Opens the API browser and the pages of the problems in Chromium: every operation is there, bodies are shown as they came, a
// payment has a fresh key, anybody can read the pages, and nothing is asked of any other host.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chromium } from "playwright-core";
import { accessible } from "./accessible.mjs";

const program = process.argv[2];
const listen = `127.0.0.1:${20000 + (process.pid % 20000)}`;
const control = `127.0.0.1:${20000 + ((process.pid + 11) % 20000)}`;
/** What the API browser's own markup does against the rules, and no style or name can mend. */
const EXCEPTIONS = [
  // The line of an operation is a button, and holds the link to the operation and the button that copies its path.
  { rule: "nested-interactive", within: ".opblock-summary-control" },
];
const demo = spawn(program, ["demo", "--listen", listen, "--control", control], { stdio: ["ignore", "pipe", "inherit"] });
const printed = new Promise((resolve) => {
  let text = "";
  demo.stdout.on("data", (chunk) => {
    text += chunk;
    if (text.includes("/docs")) resolve(text);
  });
});

/** A phone and a desktop, by day and by night. */
const SIZES = [["light", 360], ["dark", 360], ["light", 1200], ["dark", 1200]];

async function pages(page) {
  for (const path of ["docs/", "problems", "problems/payment-outcome-unknown"]) {
    await page.goto(`http://${listen}/${path}`);
    if (path === "docs/") {
      await page.locator(".opblock-post", { hasText: "/points-of-sale/{pos_id}/payments" }).first().locator(".opblock-summary-control").click();
      await page.getByRole("button", { name: "Try it out" }).click();
    }
    assert.match(await page.title(), / – ConcertPOS bridge$/, path);
    assert.equal(await page.locator(".topbar, img[alt*=Swagger]").count(), 0, `${path} has a foreign logo`);
    for (const [colorScheme, width] of SIZES) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 800 });
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width, `${path} scrolls sideways`);
      await accessible(page, `${path}, ${colorScheme}, ${width}`, path === "docs/" ? EXCEPTIONS : []);
      const bright = await page.evaluate(() => Number(/\d+/.exec(getComputedStyle(document.body).backgroundColor)[0]) > 127);
      assert.equal(bright, colorScheme === "light", `${path} is not dressed for ${colorScheme}`);
    }
  }
}

/** Makes a payment as it stands, and returns the status and the key that was sent. */
async function pay(page, operation) {
  const [request] = await Promise.all([
    page.waitForRequest((request) => request.method() === "POST" && request.url().endsWith("/payments")),
    operation.getByRole("button", { name: "Execute" }).click(),
  ]);
  const status = (await request.response()).status();
  await operation.locator(".live-responses-table .response-col_status", { hasText: String(status) }).waitFor();
  return { status, key: request.headers()["idempotency-key"], body: request.postData() };
}

async function keys(page) {
  await page.goto(`http://${listen}/docs/`);
  const operation = page.locator(".opblock-post", { hasText: "/points-of-sale/{pos_id}/payments" }).first();
  await operation.locator(".opblock-summary-control").click();
  await operation.getByRole("button", { name: "Try it out" }).click();
  await operation.getByPlaceholder("instance").fill("demo");
  await operation.getByPlaceholder("pos_id").fill("1");
  const body = '{"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 1}], "Note": 9.50}';
  await operation.locator(".body-param__text").fill(body);
  const field = operation.getByPlaceholder("Idempotency-Key");
  const first = await pay(page, operation);
  assert.deepEqual([first.status, first.body], [201, body], "the body was not sent as it was typed");
  await page.waitForFunction(([box, old]) => box.value && box.value !== old, [await field.elementHandle(), first.key]);
  // A payment that may be booked is repeated with its own key.
  const fault = await fetch(`http://${control}/faults`, { method: "POST", body: JSON.stringify({ command: "payitems", times: 1, action: "cut_after_apply" }) });
  assert.equal(fault.status, 201);
  const unknown = await pay(page, operation);
  assert.equal(unknown.status, 504);
  assert.notEqual(unknown.key, first.key, "one key for two sales");
  assert.equal(await field.inputValue(), unknown.key, "another key after an unknown outcome");
  // Nor does it change without an answer, while the payment is under way, or where the same request may succeed later: what
  // comes next is sent with it. A refusal ends it.
  const instead = (answer) => page.route("**/payments", answer, { times: 1 });
  await instead((route) => route.abort());
  await operation.getByRole("button", { name: "Execute" }).click();
  await operation.locator(".live-responses-table").getByText("Failed to fetch").first().waitFor();
  for (const status of [409, 429, 400]) {
    await instead((route) => route.fulfill({ status, contentType: "application/problem+json", body: "{}" }));
    const answered = await pay(page, operation);
    assert.deepEqual([answered.status, answered.key], [status, unknown.key], `another key before ${status}`);
  }
  await page.waitForFunction(([box, old]) => box.value && box.value !== old, [await field.elementHandle(), unknown.key]);
}

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});
try {
  await printed;
  const page = await browser.newPage({ viewport: { width: 1200, height: 1600 } });
  const elsewhere = [];
  const faults = [];
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (!["data:", "blob:"].includes(url.protocol) && url.host !== listen) elsewhere.push(request.url());
  });
  page.on("pageerror", (error) => faults.push(String(error)));
  // What the page's policy forbids is told on the console.
  page.on("console", (message) => { if (message.type() === "error") faults.push(message.text()); });
  await page.goto(`http://${listen}/docs/`);
  await page.waitForSelector(".opblock");
  const document = await (await fetch(`http://${listen}/openapi.json`)).json();
  const operations = Object.values(document.paths).flatMap((path) => Object.values(path))
    .filter((operation) => operation.operationId);
  assert.equal(await page.locator(".opblock").count(), operations.length, "an operation is missing from the page");
  const read = page.locator(".opblock", { hasText: "/points-of-sale/{pos_id}/products" }).first();
  await read.click();
  await read.getByRole("button", { name: "Try it out" }).click();
  await read.getByPlaceholder("instance").fill("demo");
  await read.getByPlaceholder("pos_id").fill("1");
  await read.getByRole("button", { name: "Execute" }).click();
  await read.locator(".live-responses-table").getByText("ProductName").first().waitFor();
  // Prices as they came: what is no digit of a number may differ, as lines are indented.
  const came = await (await fetch(`http://${listen}/v1/instances/demo/points-of-sale/1/products`)).text();
  const shown = await read.locator(".live-responses-table .highlight-code").first().locator("pre, code").first().textContent();
  assert.match(came, /\d\.\d0\b/, "no price by which a change of spelling would be seen");
  const numbers = (text) => text.match(/-?\d+(\.\d+)?/g);
  assert.deepEqual(numbers(shown), numbers(came), "a number is not shown as it came");
  assert.deepEqual(JSON.parse(shown), JSON.parse(came));
  if (process.argv[3]) await page.screenshot({ path: process.argv[3] });
  assert.deepEqual(faults, [], "the page has errors");
  await keys(page);
  await pages(page);
  // Chromium tells of each answer that is no success, and of the one that did not come.
  const isMeant = (fault) => / (504|409|429|400) |ERR_FAILED/.test(fault);
  assert.deepEqual(faults.splice(0).filter((fault) => !isMeant(fault)), [], "the page has errors");
  assert.deepEqual(elsewhere, [], "something was asked of another host");
  assert.deepEqual(faults, [], "the page has errors");
  console.log(`the API browser shows ${operations.length} operations, a read made from it is answered, and the pages are accessible`);
} finally {
  await browser.close();
  demo.kill("SIGTERM");
}
