// Watches the dashboard in Chromium while the gateway behind it loses shards and the reply of a payment.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [program, pictures] = process.argv.slice(2);
const TOKEN = "a-token-of-the-operator";
const PATIENCE_MS = 30_000;
/** What WCAG 2 asks of text at level AA; large text may have less. */
const LEAST_CONTRAST = 4.5;
/** Where the person sits: not in the zone of this machine. */
const ZONE = "Asia/Kathmandu";
const listen = `127.0.0.1:${20000 + (process.pid % 20000)}`;
const base = `http://${listen}`;
const data = mkdtempSync(join(tmpdir(), "dashboard-"));
const started = [];

function start(flags, env = {}) {
  const child = spawn(program, flags, { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...env } });
  started.push(child);
  child.said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => { child.said += chunk; });
  return child;
}

async function until(what, condition, child) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const held = await condition();
    if (held) return held;
    assert.ok(Date.now() < end, `${what} did not come about. ${child?.said ?? ""}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function post(url, body, headers = {}) {
  return fetch(url, { method: "POST", headers: { "Content-Type": "application/json", ...headers }, body: JSON.stringify(body) });
}

/** Texts that stand out too little from what is behind them. Runs in the page. */
function faint(least) {
  const parts = (color) => (color.match(/[\d.]+/g) ?? []).map(Number);
  const light = (color) => {
    const [r, g, b] = parts(color).slice(0, 3).map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const color = getComputedStyle(one).backgroundColor;
      if (parts(color)[3] !== 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  return [...document.querySelectorAll("body *")]
    .filter((element) => element.checkVisibility() && !element.closest(":disabled, .unseen, .skip"))
    .filter((element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
    .map((element) => {
      let opacity = 1;
      for (let one = element; one; one = one.parentElement) opacity *= Number(getComputedStyle(one).opacity);
      const [a, b] = [light(getComputedStyle(element).color), light(behind(element))];
      const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) * (opacity < 1 ? opacity : 1);
      return { text: element.textContent.trim().slice(0, 60), ratio: Number(ratio.toFixed(2)) };
    })
    .filter(({ ratio }) => ratio < least);
}

const simulator = start(["simulate", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0", "--limits", "command"]);
const [, gateway] = await until("the simulator", () => /gateway\.url = "([^"]+)"/.exec(simulator.said), simulator);
const [, control] = await until("its control endpoint", () => /control endpoint: (\S+)/.exec(simulator.said), simulator);
const sha256 = (text) => createHash("sha256").update(text).digest("hex");
const bridge = start(["serve"], {
  BRIDGE_SERVER__LISTEN: listen,
  BRIDGE_GATEWAY__URL: gateway,
  BRIDGE_INSTANCES__DEMO__API_KEY: "demo-key",
  BRIDGE_AUTH__TOKENS__WALL__SHA256: sha256(TOKEN),
  BRIDGE_AUTH__TOKENS__WALL__INSTANCES: "demo",
  BRIDGE_AUTH__TOKENS__WALL__SCOPES: "read,pay,events,operate",
  BRIDGE_PAYMENTS__JOURNAL: join(data, "journal"),
  BRIDGE_CACHE__STORE: "",
});
/** A second bridge, of two instances, whose callers are not all operators. */
const pair = `127.0.0.1:${20000 + ((process.pid + 7) % 20000)}`;
const twofold = start(["serve"], {
  BRIDGE_SERVER__LISTEN: pair,
  BRIDGE_GATEWAY__URL: gateway,
  BRIDGE_INSTANCES__DEMO__API_KEY: "demo-key",
  BRIDGE_INSTANCES__STAGE__API_KEY: "demo-key",
  BRIDGE_AUTH__TOKENS__WALL__SHA256: sha256(TOKEN),
  BRIDGE_AUTH__TOKENS__WALL__INSTANCES: "demo,stage",
  BRIDGE_AUTH__TOKENS__WALL__SCOPES: "read,pay,events,operate",
  BRIDGE_AUTH__TOKENS__SHOP__SHA256: sha256("a-token-of-the-shop"),
  BRIDGE_AUTH__TOKENS__SHOP__INSTANCES: "stage",
  BRIDGE_AUTH__TOKENS__SHOP__SCOPES: "read,pay",
  BRIDGE_PAYMENTS__JOURNAL: join(data, "journal-of-two"),
  BRIDGE_CACHE__STORE: "",
});
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});

const authorization = { Authorization: `Bearer ${TOKEN}` };
const status = async () => (await fetch(`${base}/v1/bridge`, { headers: authorization })).json();
const kill = (shard, alive = false) => post(`${control}/shards/${shard}`, { alive });

try {
  await until("the bridge", () => fetch(`${base}/readyz?require=gateway`).then((answer) => answer.ok, () => false), bridge);
  const page = await browser.newPage({ viewport: { width: 1280, height: 1400 }, timezoneId: ZONE, locale: "en-GB" });
  const [elsewhere, faults, forbidden] = [[], [], []];
  page.on("request", (request) => { if (new URL(request.url()).host !== listen) elsewhere.push(request.url()); });
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("console", (message) => {
    // An answer that is no success is told by the browser, and expected here.
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) forbidden.push(message.text());
  });
  const shown = async (name) => {
    if (!pictures) return;
    mkdirSync(pictures, { recursive: true });
    await page.screenshot({ path: join(pictures, `${name}.png`), fullPage: true });
  };
  const legible = async (where) => assert.deepEqual(await page.evaluate(faint, LEAST_CONTRAST), [], `too faint: ${where}`);
  const card = (shard) => page.locator(".shard", { has: page.getByRole("heading", { name: shard, exact: true }) });
  const says = async (shard, words) => card(shard).locator(".badge", { hasText: words }).waitFor({ timeout: PATIENCE_MS });
  const attention = page.locator("#attention");

  // Who has no token sees nothing, and is told of a wrong one.
  await page.goto(`${base}/`);
  const field = page.getByLabel("Token", { exact: true });
  await field.fill("some-other-token");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByText("The bridge does not know this token.").waitFor();
  assert.equal(await page.locator("#board").isVisible(), false, "the board is shown to a stranger");
  await shown("sign-in");
  await legible("sign-in");
  await field.fill(TOKEN);
  await page.getByRole("button", { name: "Sign in" }).click();

  // Every shard is there, with the links that the bridge has.
  await attention.getByText("All is well").waitFor();
  const { shards } = (await status()).instances[0];
  assert.equal(await page.locator(".shard").count(), shards.length);
  const linked = shards.filter((shard) => shard.links.length > 0).map((shard) => shard.shard);
  const spare = shards.find((shard) => shard.links.length === 0).shard;
  for (const shard of linked) await says(shard, "Serving");
  await says(spare, "Standing by");

  // What somebody types as a broadcast is text, whatever it looks like.
  await page.getByText("Listening").waitFor();
  const script = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">";
  await post(`${control}/broadcasts`, { message: script, parameters: { note: "<b>bold</b>" } });
  await page.locator("#broadcast-rows").getByText(script, { exact: true }).waitFor();
  await page.locator("#broadcast-rows").getByText("<b>bold</b>").waitFor();
  await fetch(`${control}/broadcasts`, { method: "POST", headers: { "Content-Type": "application/json" }, body: '{"message":"offer","parameters":{"Price":9.50}}' });
  await page.locator("#broadcast-rows").getByText('{"Price":9.50}', { exact: true }).waitFor();
  assert.equal(await page.locator("#broadcast-rows").locator("script, img, b").count(), 0, "a broadcast became markup");
  assert.equal(await page.title(), "ConcertPOS bridge");
  await shown("all-is-well");
  await legible("all is well");

  // One bridge is no cluster; of several the page shows who owns what and whose lease is missing.
  const replicas = page.locator("#replicas");
  assert.equal(await replicas.isVisible(), false, "one bridge shows replicas");
  const member = { address: "10.0.0.5:9191", version: "0.1.0", format: 1, draining: false, silent_ms: 200, lists: 2, owns: 1 };
  const cluster = {
    replica: "bridge-0", session: "a", lease_left_ms: 4200, lease_ms: 6000, settings_differ: [], owner_changes: 3,
    database: { fault: null, fault_since: null, has_standby: true },
    replicas: [{ ...member, name: "bridge-0", session: "a" }, { ...member, name: "<b>bridge-1", session: "b", silent_ms: 3500 }],
    owners: [{ instance: "demo", replica: "bridge-0", epoch: 3 }, { instance: "stage", replica: null, epoch: 4 }],
  };
  const asSeveral = async (route) => {
    const answer = await route.fetch();
    await route.fulfill({ response: answer, json: { ...await answer.json(), cluster } });
  };
  await page.route("**/v1/bridge", asSeveral);
  const row = (name) => replicas.locator("tbody tr", { hasText: name });
  await row("bridge-0 (this one)").getByText("Serving").waitFor();
  await row("bridge-0 (this one)").getByText("may act for 4.2\u00a0s").waitFor();
  await row("<b>bridge-1").getByText("Silent").waitFor();
  await row("<b>bridge-1").getByText("renewed 3.5\u00a0s ago").waitFor();
  await replicas.getByText("bridge-0 owns demo. 2 instances in all, 1 of them owned by nobody; 3 changes of owner seen.").waitFor();
  await shown("replicas");
  await legible("replicas");
  [cluster.lease_left_ms, cluster.replicas[1].draining] = [null, true];
  await row("bridge-0 (this one)").getByText("Lease is over").waitFor();
  await row("<b>bridge-1").getByText("Stopping").waitFor();
  await legible("replicas without a lease");
  await page.unroute("**/v1/bridge", asSeveral);
  await replicas.waitFor({ state: "hidden" });

  // A shard dies: another takes over, and the page says which one is gone.
  await kill(linked[0]);
  await says(linked[0], "Lost its links");
  await says(spare, "Serving");
  await attention.getByText(`${linked[0]} lost its links`).waitFor();
  // The next one dies: now the first is tried, and is down.
  await kill(linked[1]);
  await says(linked[0], "Down");
  await attention.getByText(`Only ${spare} has links`).waitFor();
  await shown("shards-down");
  await legible("shards down");
  for (const shard of linked) await kill(shard, true);
  await attention.getByText(`Only ${spare} has links`).waitFor({ state: "detached", timeout: PATIENCE_MS });

  // A payment whose reply is lost waits for a person, who settles it here. Its price has changed, and nobody was told.
  for (const path of ["points-of-sale", "points-of-sale/1/products", "points-of-sale/1/payment-methods"]) {
    const read = await fetch(`${base}/v1/instances/demo/${path}`, { headers: authorization });
    assert.equal(read.status, 200, path);
  }
  const dearer = await fetch(`${control}/products/1/1`, { method: "PATCH", headers: { "Content-Type": "application/json" }, body: '{"Price": 4.75}' });
  assert.ok(dearer.ok, await dearer.text());
  const fault = await post(`${control}/faults`, { command: "payitems", times: 1, action: "cut_after_apply" });
  assert.equal(fault.status, 201, await fault.text());
  const sale = { PaymentMethod: 1, Products: [{ ID: 1, Amount: 2 }] };
  const key = { ...authorization, "Idempotency-Key": "till-7-order-12" };
  const paid = await post(`${base}/v1/instances/demo/points-of-sale/1/payments`, sale, key);
  assert.equal(paid.status, 504, await paid.text());
  const unsettled = page.locator("#unsettled .payment");
  await unsettled.getByText("till-7-order-12").waitFor();
  await attention.getByText("1 payment of unknown outcome").waitFor();
  await shown("unsettled");
  // The transaction is looked for a few times; the person waits until there is something to judge by.
  await until("evidence", async () => /Matching transactions[1-9]/.test(await unsettled.textContent()));
  await shown("unsettled");
  await legible("unsettled");
  const [lost] = (await (await fetch(`${base}/v1/instances/demo/payments?state=unknown`, { headers: authorization })).json()).payments;
  const spelled = await (await fetch(`${base}/v1/instances/demo/payments/${lost.id}`, { headers: authorization })).text();
  const local = (at) => new Intl.DateTimeFormat("en-GB", { timeZone: ZONE, year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false }).format(new Date(at));
  const focused = () => page.evaluate(() => document.activeElement.getAttribute("aria-label") ?? document.activeElement.id);
  // The dialog is longer than a low window: it opens at its top all the same, and gives focus back.
  await page.setViewportSize({ width: 1280, height: 420 });
  await unsettled.getByRole("button").click();
  const dialog = page.locator("#settle");
  await dialog.getByText("Evidence").waitFor();
  assert.deepEqual(await dialog.evaluate((box) => [box.scrollTop, box.scrollHeight > box.clientHeight]), [0, true]);
  assert.equal(await focused(), "settle-heading");
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "hidden" });
  assert.match(await focused(), /^Settle: 2 × Beer 0.5 l at Bar North/);
  await page.setViewportSize({ width: 1280, height: 1400 });
  await unsettled.getByRole("button").click();
  // Both sides in local time, names and sum of the dispatch, and what differs.
  const facts = dialog.locator("#settle-facts");
  for (const fact of [local(lost.dispatched_at), "Bar North (1)", "Cash (1)", "9.00", "till-7-order-12"]) {
    await facts.getByText(fact, { exact: true }).first().waitFor();
  }
  assert.deepEqual(await dialog.locator("#settle-sold tbody td").allTextContents(), ["Beer 0.5 l (1)", "2", "4.50", "9.00"]);
  const booked = lost.evidence.transactions[0].transaction;
  const cells = await dialog.locator("#settle-evidence tbody td").allTextContents();
  assert.deepEqual(cells.slice(0, 5), [String(booked.ID), local(booked.timestamp), "Beer 0.5 l (1)", "2", "9.50"]);
  assert.match(cells[5], /^money: 9.50 instead of 9.00; \d+\ss after it was sent$/);
  assert.match(cells[11], /^time: \d+\sd \d+\sh before it was sent$/, "what was there long before is no candidate for a person");
  const source = dialog.locator("#settle-evidence pre");
  assert.equal(await source.isVisible(), false, "the JSON is folded away");
  await shown("settle-folded");
  await dialog.getByText("As the gateway sent them (JSON)").click();
  const sent = await source.textContent();
  assert.ok(sent.split("\n").every((line) => spelled.includes(line)) && sent.includes('"AmountMoney":9.50,'), sent);
  await dialog.getByRole("button", { name: "Settle for good" }).click();
  await dialog.getByText("Choose what you found.").waitFor();
  await dialog.getByText("It was booked.").click();
  await dialog.getByLabel("Reason").fill("The till's receipt says so.");
  await shown("settle");
  await legible("settle");
  await page.setViewportSize({ width: 360, height: 740 });
  await shown("settle-phone");
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360, "the dialog makes the page scroll sideways");
  await page.setViewportSize({ width: 1280, height: 1400 });
  await dialog.getByRole("button", { name: "Settle for good" }).click();
  await dialog.waitFor({ state: "hidden" });
  await page.locator("#unsettled").waitFor({ state: "hidden" });
  assert.equal(await focused(), "content", "focus is lost with the last payment to settle");
  const records = await (await fetch(`${base}/v1/instances/demo/payments?state=settled`, { headers: authorization })).json();
  const settled = records.payments.map(({ idempotency_key, settlement }) => [idempotency_key, settlement.outcome, settlement.reason]);
  assert.deepEqual(settled, [["till-7-order-12", "booked", "The till's receipt says so."]]);
  assert.equal((await post(`${base}/v1/instances/demo/points-of-sale/1/payments`, sale, key)).status, 201);

  // Of several instances one is chosen; a shard is taken out of all of them, and put back.
  await until("the second bridge", () => fetch(`http://${pair}/readyz`).then((answer) => answer.ok, () => false), twofold);
  const second = await browser.newPage({ viewport: { width: 1280, height: 1400 } });
  second.on("pageerror", (error) => faults.push(String(error)));
  const signIn = async (token) => {
    await second.getByLabel("Token", { exact: true }).fill(token);
    await second.getByRole("button", { name: "Sign in" }).click();
  };
  const ofBoth = async () => (await (await fetch(`http://${pair}/v1/bridge`, { headers: authorization })).json()).instances
    .map(({ instance, shards }) => [instance, shards.find(({ shard }) => shard === "cyton").cordoned]);
  await second.goto(`http://${pair}/`);
  await signIn(TOKEN);
  const choice = second.getByLabel("Instance");
  await choice.locator("option", { hasText: "stage" }).waitFor({ state: "attached" });
  assert.deepEqual(await choice.locator("option").allTextContents(), ["demo", "stage"]);
  await choice.selectOption("stage");
  const cyton = second.locator(".shard", { has: second.getByRole("heading", { name: "cyton", exact: true }) });
  await cyton.getByRole("button", { name: "Take cyton out" }).click();
  const sure = second.locator("#cordon");
  await sure.getByText("This applies to every instance").waitFor();
  await sure.getByRole("button", { name: "Cancel" }).click();
  assert.deepEqual(await ofBoth(), [["demo", false], ["stage", false]], "cancelled, and done all the same");
  await cyton.getByRole("button", { name: "Take cyton out" }).click();
  await sure.getByRole("button", { name: "Take it out" }).click();
  await cyton.locator(".badge", { hasText: "Taken out" }).waitFor({ timeout: PATIENCE_MS });
  await second.locator("#attention").getByText("cyton is taken out by hand for stage.").waitFor();
  await second.locator("#attention").getByText("cyton is taken out by hand for demo.").waitFor();
  assert.deepEqual(await ofBoth(), [["demo", true], ["stage", true]]);
  if (pictures) await second.screenshot({ path: join(pictures, "taken-out.png"), fullPage: true });
  await cyton.getByRole("button", { name: "Put cyton back" }).click();
  await sure.getByRole("button", { name: "Put it back" }).click();
  await cyton.getByRole("button", { name: "Take cyton out" }).waitFor();
  assert.deepEqual(await ofBoth(), [["demo", false], ["stage", false]]);
  assert.equal(await choice.inputValue(), "stage", "the choice is kept");
  // Who may not operate is told so, and sees nothing of shards and budgets.
  await second.getByRole("button", { name: "Sign out" }).click();
  await signIn("a-token-of-the-shop");
  await second.getByText("This token cannot view the bridge's status").waitFor();
  await second.getByText("This token may use stage; the page shows its own payments").waitFor();
  for (const part of ["#shards", "#budget", "#attention", "#figures"]) {
    assert.equal(await second.locator(part).isVisible(), false, `${part} is shown to one who may not operate`);
  }
  assert.equal(await second.getByRole("button", { name: /Take .* out/ }).count(), 0);
  if (pictures) await second.screenshot({ path: join(pictures, "limited.png"), fullPage: true });
  await second.close();

  // On a phone, in the dark.
  await page.emulateMedia({ colorScheme: "dark" });
  await page.setViewportSize({ width: 360, height: 740 });
  await page.getByText("Recent payments").click();
  await page.locator("#recent-rows").getByText("The till's receipt says so.").waitFor();
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360, "the page scrolls sideways on a phone");
  await shown("phone-dark");
  await legible("phone, dark");
  await page.setViewportSize({ width: 1280, height: 1400 });
  await shown("dark");

  // The bridge goes: what is shown is marked as old.
  bridge.kill("SIGTERM");
  await page.locator("#pulse", { hasText: "The data is as of" }).waitFor({ timeout: PATIENCE_MS });
  await shown("bridge-gone");
  await legible("bridge gone");
  await page.getByRole("button", { name: "Sign out" }).click();
  assert.equal(await page.evaluate(() => sessionStorage.length), 0, "the token outlives signing out");
  assert.equal(await page.locator(".shard").count(), 0, "the board outlives signing out");

  assert.deepEqual(elsewhere, [], "something was asked of another host");
  assert.deepEqual(faults, [], "the page has errors");
  assert.deepEqual(forbidden, [], "the console tells of errors");
  console.log("the dashboard shows shards, a death, a broadcast as text, settles a payment and takes a shard out");
} finally {
  await browser.close();
  for (const child of started.filter((child) => child.exitCode === null && child.signalCode === null)) {
    child.kill("SIGTERM");
    await once(child, "exit");
  }
  rmSync(data, { recursive: true, force: true });
}
