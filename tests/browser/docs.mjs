// Opens the API browser in Chromium: every operation is there, and nothing is asked of any other host.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chromium } from "playwright-core";

const program = process.argv[2];
const listen = `127.0.0.1:${20000 + (process.pid % 20000)}`;
const demo = spawn(program, ["demo", "--listen", listen], { stdio: ["ignore", "pipe", "inherit"] });
const printed = new Promise((resolve) => {
  let text = "";
  demo.stdout.on("data", (chunk) => {
    text += chunk;
    if (text.includes("/docs")) resolve(text);
  });
});

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
  if (process.argv[3]) await page.screenshot({ path: process.argv[3] });
  assert.deepEqual(elsewhere, [], "something was asked of another host");
  assert.deepEqual(faults, [], "the page has errors");
  console.log(`the API browser shows ${operations.length} operations, and a read made from it is answered`);
} finally {
  await browser.close();
  demo.kill("SIGTERM");
}
