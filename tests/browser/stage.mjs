// A simulated gateway, a bridge of one instance and one of twenty, and a browser: what several tests and the screenshots need.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

export const TOKEN = "a-token-of-the-operator";
export const PATIENCE_MS = 30_000;
export const LONG_NAME = "sommernachtsfestival-am-grossen-see-2026-hauptbuehne-west";
/** Twenty instances, one with a name as long as they come. */
export const NAMES = Array.from({ length: 20 }, (_, index) => index === 7 ? LONG_NAME
  : `${["parkbuehne", "stadtfest", "openair", "jazz", "rock", "elbufer"][index % 6]}-${index + 1}`);
const authorization = { Authorization: `Bearer ${TOKEN}` };
const SALE = { PaymentMethod: 1, Products: [{ ID: 1, Amount: 2 }] };

export async function until(what, condition, told = () => "") {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const held = await condition();
    if (held) return held;
    assert.ok(Date.now() < end, `${what} did not come about. ${told()}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export const launch = () => chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});

const post = (url, body, headers = {}) => fetch(url, { method: "POST", headers: { "Content-Type": "application/json", ...headers }, body: JSON.stringify(body) });

/** The gateway has one instance: whatever name a bridge connects under becomes that one. */
async function renaming(port) {
  const server = net.createServer((near) => {
    const far = net.connect(port, "127.0.0.1");
    near.once("data", (head) => {
      far.write(head.toString("latin1").replace(/instance=[a-z0-9-]+/, "instance=demo"), "latin1");
      near.pipe(far);
    });
    far.pipe(near);
    for (const [one, other] of [[near, far], [far, near]]) one.on("error", () => other.destroy()).on("close", () => other.destroy());
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return server;
}

/** One bridge, and what a till and an operator do with it. */
function client(base, control) {
  const payments = (instance, key, pos = 1) => post(`${base}/v1/instances/${instance}/points-of-sale/${pos}/payments`, SALE, { ...authorization, "Idempotency-Key": key });
  const pay = async (instance, key, wanted, pos) => {
    const answer = await payments(instance, key, pos);
    assert.equal(answer.status, wanted, await answer.text());
  };
  return {
    base,
    sell: (instance, key) => pay(instance, key, 201),
    /** A sale at the point of sale that has a password, without it. */
    sellRefused: (instance, key) => pay(instance, key, 403, 7),
    /** A sale that is booked, and whose reply is lost. */
    sellUnknown: async (instance, key) => {
      assert.equal((await post(`${control}/faults`, { command: "payitems", times: 1, action: "cut_after_apply" })).status, 201);
      await pay(instance, key, 504);
    },
    read: async (path) => (await fetch(`${base}/v1/${path}`, { headers: authorization })).json(),
  };
}

/** Starts everything; `end` stops it. */
export async function stage(program) {
  const data = mkdtempSync(join(tmpdir(), "stage-"));
  const started = [];
  const start = (flags, env = {}) => {
    const child = spawn(program, flags, { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...env } });
    started.push(child);
    child.said = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => { child.said += chunk; });
    return child;
  };
  const simulator = start(["simulate", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0", "--limits", "off"]);
  const [, gateway] = await until("the simulator", () => /gateway\.url = "([^"]+)"/.exec(simulator.said), () => simulator.said);
  const [, control] = await until("its control endpoint", () => /control endpoint: (\S+)/.exec(simulator.said), () => simulator.said);
  const proxy = await renaming(Number(new URL(gateway.replace("{shard}", "exon")).port));
  const common = {
    BRIDGE_AUTH__TOKENS__WALL__SHA256: createHash("sha256").update(TOKEN).digest("hex"),
    BRIDGE_AUTH__TOKENS__WALL__INSTANCES: "*",
    BRIDGE_AUTH__TOKENS__WALL__SCOPES: "read,pay,events,operate",
    BRIDGE_CACHE__STORE: "",
  };
  const serve = async (name, port, url, instances) => {
    const file = join(data, `${name}.toml`);
    writeFileSync(file, instances.map((instance) => `[instances.${instance}]\napi_key = "demo-key"\n`).join(""));
    const listen = `127.0.0.1:${20000 + ((process.pid + port) % 20000)}`;
    const bridge = start(["serve", "--config", file], { ...common, BRIDGE_SERVER__LISTEN: listen, BRIDGE_GATEWAY__URL: url, BRIDGE_PAYMENTS__JOURNAL: join(data, name) });
    const linked = () => fetch(`http://${listen}/readyz?require=gateway`).then((answer) => answer.ok, () => false);
    await until(`the bridge ${name}`, linked, () => bridge.said);
    const one = client(`http://${listen}`, control);
    await until("links of every instance", async () => (await one.read("bridge")).instances
      .every(({ shards }) => shards.filter(({ links }) => links.length > 0).length > 1), () => bridge.said);
    return { ...one, stop: () => bridge.kill("SIGTERM") };
  };
  const end = async () => {
    for (const child of started.filter((child) => child.exitCode === null && child.signalCode === null)) {
      child.kill("SIGTERM");
      await once(child, "exit");
    }
    proxy.close();
    rmSync(data, { recursive: true, force: true });
  };
  try {
    const one = await serve("one", 0, gateway, ["demo"]);
    const many = await serve("many", 1, gateway.replace(/:\d+/, `:${proxy.address().port}`), NAMES);
    return { one, many, control, end };
  } catch (fault) {
    await end();
    throw fault;
  }
}

/** Opens the page of a bridge and signs in. */
export async function open(browser, base, { width, height, dark = false, path = "/" }) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: dark ? "dark" : "light" });
  const page = await context.newPage();
  page.faults = [];
  page.on("pageerror", (error) => page.faults.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) page.faults.push(message.text());
  });
  await page.goto(`${base}${path}`);
  await page.getByLabel("Token", { exact: true }).fill(TOKEN);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.locator("#board").waitFor();
  return page;
}
