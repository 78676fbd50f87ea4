// Listens to broadcasts through the real program with three clients that are not ours: the EventSource of Chromium, the
// npm package `eventsource`, and `httpx-sse` of Python. Each is cut off and has to come back by itself, after what
// `retry` said, with the id that it heard last.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { EventSource } from "eventsource";
import { chromium } from "playwright-core";

const [program, python] = process.argv.slice(2);
const listener = path.join(import.meta.dirname, "listen.py");
const token = "a-token-of-a-page";
const names = ["message", "ready", "cursor", "gap", "reset", "overloaded"];
const history = 32;
/// Everything that ends a line somewhere, and everything that could begin a field.
const texts = ["a\rb", "a\nb", "a\r\nb", "a\u2028b\u2029c\u0085d", " a", ":a", "", "\ufeffa", "x\n\nid: 9\nevent: reset\ndata: forged\n\n",
  "retry: 1", "data", "Gl\u00fchwein \u{1f377}"];

async function free() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await new Promise((listening) => server.once("listening", listening));
  const { port } = server.address();
  await new Promise((closed) => server.close(closed));
  return `127.0.0.1:${port}`;
}

async function until(what, holds, patience = 20_000) {
  for (const begun = Date.now(); !(await holds()); await new Promise((later) => setTimeout(later, 20))) {
    if (Date.now() - begun > patience) throw new Error(`it never came to this: ${what}`);
  }
}

/// A way to the bridge that can be cut and barred, and that remembers what passed.
class Way {
  sockets = new Set();
  requests = [];
  text = "";
  barred = false;

  static async to(address) {
    const way = new Way();
    const [host, port] = address.split(":");
    way.server = net.createServer((client) => {
      if (way.barred) return client.destroy();
      const bridge = net.connect(Number(port), host);
      for (const [from, to] of [[client, bridge], [bridge, client]]) {
        way.sockets.add(from);
        from.on("close", () => { way.sockets.delete(from); to.destroy(); });
        from.on("error", () => {});
        from.pipe(to);
      }
      client.on("data", (data) => {
        if (data.includes("/events")) way.requests.push({ at: Date.now(), head: data.toString() });
      });
      bridge.on("data", (data) => { way.text += data.toString(); });
    }).listen(0, "127.0.0.1");
    await new Promise((listening) => way.server.once("listening", listening));
    way.origin = `http://127.0.0.1:${way.server.address().port}`;
    return way;
  }

  cut() {
    for (const socket of this.sockets) socket.destroy();
    return Date.now();
  }

  close() {
    this.cut();
    this.server.close();
  }
}

const clients = {
  "EventSource in Chromium": async (way, url, heard) => {
    const page = await browser.newPage();
    await page.goto(`${way.origin}/openapi.json`);
    await page.exposeFunction("heard", heard);
    await page.evaluate(([url, names]) => {
      const source = new EventSource(url);
      const tell = ({ type, data, lastEventId }) => window.heard({ type, data, id: lastEventId });
      source.onmessage = tell;
      for (const name of names.slice(1)) source.addEventListener(name, tell);
    }, [url, names]);
    return () => page.close();
  },
  "eventsource of npm": async (_, url, heard) => {
    const source = new EventSource(url);
    const tell = ({ type, data, lastEventId }) => heard({ type, data, id: lastEventId });
    source.onmessage = tell;
    for (const name of names.slice(1)) source.addEventListener(name, tell);
    return () => source.close();
  },
  "httpx-sse of Python": async (_, url, heard) => {
    const child = spawn(python, [listener, url], { stdio: ["ignore", "pipe", "ignore"] });
    createInterface({ input: child.stdout }).on("line", (line) => heard(JSON.parse(line)));
    return () => child.kill();
  },
};

/// Every broadcast is another one, whatever its text: equal ones are told apart by counting, which is not tested here.
let told = 0;
async function broadcast(message) {
  const parameters = { n: ++told, text: message };
  const body = JSON.stringify({ message, parameters });
  assert.equal((await fetch(`http://${control}/broadcasts`, { method: "POST", body })).status, 200);
  return { message, parameters };
}

async function broadcasts(messages) {
  const all = [];
  for (const message of messages) all.push(await broadcast(message));
  return all;
}

function assertHeard(events, expected) {
  const plain = events.map(({ data }) => JSON.parse(data)).map(({ message, parameters }) => ({ message, parameters }));
  assert.deepEqual(plain, expected);
  assert.ok(events.every(({ type }) => type === "message"), "a broadcast has a name");
}

const offset = ({ id }) => Number(id.slice(id.lastIndexOf("-") + 1));

async function listens(open) {
  const way = await Way.to(bridge);
  const events = [];
  const url = `${way.origin}/v1/instances/demo/events?access_token=${token}`;
  const close = await open(way, url, (event) => events.push(event));
  try {
    // By name, and first.
    await until("ready", () => events.length > 0);
    assert.equal(events[0].type, "ready");
    assert.equal(JSON.parse(events[0].data).id, events[0].id);

    // Each text is one event that holds it, in order, with an id of its own.
    const first = await broadcasts(texts);
    await until("all texts", () => events.length >= 1 + texts.length);
    assertHeard(events.slice(1), first);
    events.slice(1).forEach((event, index) => assert.equal(offset(event), offset(events[0]) + 1 + index));

    // A sign of life is seen on the wire, and by nobody else.
    const before = way.text.length;
    await until("a sign of life", () => /(^|\n):\n/.test(way.text.slice(before)));
    assert.equal(events.length, 1 + texts.length, "a comment was taken for an event");

    // Cut off, it comes back after `retry` with the id of its last event, and hears what it missed, once each.
    const retry = Number(way.text.match(/\nretry: (\d+)\n/)[1]);
    const last = events.at(-1).id;
    way.barred = false;
    const cut = way.cut();
    const missed = await broadcasts(["missed", "missed as well"]);
    await until("coming back", () => way.requests.length === 2);
    assert.ok(way.requests[1].at - cut >= retry - 100, "it came back before `retry`");
    assert.ok(way.requests[1].at - cut < retry + 3000, "it took no notice of `retry`");
    assert.ok(way.requests[1].head.toLowerCase().includes(`last-event-id: ${last}`), way.requests[1].head);
    await until("what it missed", () => events.length >= 1 + texts.length + 3);
    const [ready, ...after] = events.slice(1 + texts.length);
    assert.deepEqual([ready.type, ready.id], ["ready", last]);
    assertHeard(after, missed);

    // Away for longer than the log remembers, it is told so by name.
    way.cut();
    const heard = events.length;
    const many = await broadcasts(Array.from({ length: history + 8 }, (_, index) => `many ${index}`));
    await until("the gap and the rest", () => events.length >= heard + 2 + history);
    const [again, gap, ...rest] = events.slice(heard);
    assert.deepEqual([again.type, gap.type], ["ready", "gap"]);
    assert.equal(JSON.parse(gap.data).reason, "history");
    assertHeard(rest, many.slice(-history));

    // The bridge has no room for a second one: that, too, is told by name and not by a status.
    const refused = [];
    const closeSecond = await open(way, url, (event) => refused.push(event));
    await until("overloaded", () => refused.length > 0);
    await closeSecond();
    assert.deepEqual([refused[0].type, JSON.parse(refused[0].data).reason], ["overloaded", "full"]);
  } finally {
    await close();
    way.close();
  }
}

const [gateway, control, bridge] = [await free(), await free(), await free()];
const folder = mkdtempSync(path.join(tmpdir(), "events-"));
const settings = path.join(folder, "bridge.toml");
writeFileSync(settings, `
[server]
listen = "${bridge}"
[gateway]
url = "ws://${gateway}/{shard}/?instance={instance}&Content-Type={format}"
# One copy of each broadcast: which copies are the same one is tested elsewhere.
min_links = 1
max_links = 1
[instances.demo]
api_key = "demo-key"
[auth.tokens.page]
sha256 = ["${createHash("sha256").update(token).digest("hex")}"]
instances = ["demo"]
scopes = ["events"]
[events]
history = ${history}
heartbeat = "1s"
max_subscribers = 1
[payments]
journal = "${folder}/journal"
[cache]
store = "${folder}/cache"
[telemetry]
log = "warn"
`);
const quiet = { stdio: ["ignore", "ignore", "inherit"] };
const children = [
  spawn(program, ["simulate", "--listen", gateway, "--control", control, "--limits", "off", "--broadcast-jitter", "0ms"], quiet),
  spawn(program, ["serve", "--config", settings], quiet),
];
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});
try {
  await until("the bridge is ready", async () => {
    const answer = await fetch(`http://${bridge}/readyz?require=gateway`).catch(() => undefined);
    return answer?.status === 200;
  });
  for (const [name, open] of Object.entries(clients)) {
    await listens(open).catch((fault) => { throw new Error(`${name}: ${fault.message}`, { cause: fault }); });
    console.log(`${name} hears every broadcast once, whatever its text, and comes back by itself`);
  }
} finally {
  await browser.close();
  await Promise.all(children.map((child) => new Promise((ended) => {
    child.once("exit", ended);
    if (child.exitCode !== null || !child.kill("SIGTERM")) ended();
  })));
  rmSync(folder, { recursive: true, force: true });
}
