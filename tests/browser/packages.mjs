// Sells and listens with the packages of examples/clients/packages, behind nginx and behind a proxy that does its worst, while
// the bridge is killed and restarted, the gateway's replies are lost, and the callers themselves are killed:
//
//     packages.mjs BRIDGE PYTHON DRIVER.py DRIVER.js
import assert from "node:assert/strict";
import http from "node:http";
import { once } from "node:events";
import { readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { proxied, until } from "./proxied.mjs";

const [program, ...drivers] = process.argv.slice(2);
const token = "a-token-of-a-package";
const stage = await proxied(program, {
  token,
  scopes: ["read", "pay", "events", "operate"],
  locations: (bridge) => `location / {
      proxy_pass http://${bridge};
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }`,
});

/** Each sale has an amount of its own, by which it is found among the gateway's transactions. */
let amounts = 1000;
const sale = () => ({ PaymentMethod: 1, Products: [{ ID: 1, Amount: ++amounts }] });
async function booked({ Products: [{ Amount }] }) {
  const transactions = await stage.control("GET", "/transactions");
  return transactions.filter(({ AmountProduct }) => Number(AmountProduct) === Amount).length;
}

class Caller {
  /** `pos` is a point of sale that no other sells at, so that nginx's log tells whose request a line is about. */
  constructor(name, pos, command) {
    this.name = name;
    this.pos = pos;
    this.command = command;
    this.store = path.join(stage.folder, name);
  }

  start(args, env = {}) {
    const [command, ...first] = this.command;
    const settings = { BRIDGE: stage.proxy, TOKEN: token, STORE: this.store, ...env };
    return stage.run(command, [...first, ...args], { env: { ...process.env, ...settings } });
  }

  pay(sold, { key = "", pos = this.pos, ...env } = {}) {
    return this.start(["pay", String(pos), JSON.stringify(sold), key], env);
  }

  /** What a program that ends by itself said, a JSON text a line. */
  async said(child) {
    const code = await Promise.race([child.ended, new Promise((late) => setTimeout(late, 90_000, "still running"))]);
    assert.equal(code, 0, `${this.name}: ${child.errors}`);
    return child.lines.map((line) => JSON.parse(line));
  }

  kept() {
    return readdirSync(this.store).filter((name) => name.endsWith(".json"));
  }
}

const callers = [
  new Caller("Python", 1, drivers.slice(0, 2)),
  new Caller("TypeScript", 2, [process.execPath, drivers[2]]),
];
const each = (step) => Promise.all(callers.map(step));
const refusals = /NOT_BOOKED = \{([^}]*)\}/.exec(readFileSync(path.join(import.meta.dirname, "../../examples/pay.py"), "utf8"))[1]
  .match(/[a-z-]+(?=")/g).sort();

/** A proxy in front of the bridge that answers request after request as `deeds` say, then passes on. */
async function worst(deeds) {
  const server = http.createServer(async (request, answer) => {
    const body = Buffer.concat(await request.toArray());
    const deed = deeds.shift() ?? "pass";
    if (deed === "reset") return request.socket.resetAndDestroy();
    if (deed === "page") return answer.writeHead(502, { "Content-Type": "text/html" }).end("<h1>502</h1>");
    if (deed === "moved") return answer.writeHead(307, { Location: `${stage.bridge}${request.url}` }).end();
    if (deed === "later") return answer.writeHead(503, { "Retry-After": "2" }).end();
    if (deed === "drip") {
      answer.writeHead(201, { "Content-Type": "application/json", "Content-Length": "1000" });
      const drip = setInterval(() => answer.write(" "), 100);
      return answer.once("close", () => clearInterval(drip));
    }
    // Uncompressed, since `fetch` would undo it.
    const headers = { ...request.headers, "accept-encoding": "identity" };
    const passed = await fetch(`${stage.bridge}${request.url}`, { method: request.method, headers, body: body.length ? body : undefined });
    const text = Buffer.from(await passed.arrayBuffer());
    for (const name of ["Content-Type", "Retry-After", "Idempotent-Replayed"]) {
      if (passed.headers.has(name)) answer.setHeader(name, passed.headers.get(name));
    }
    answer.writeHead(passed.status, { "Content-Length": text.length });
    if (deed === "half") answer.write(text.subarray(0, text.length / 2), () => request.socket.destroy());
    else answer.end(text);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { url: `http://127.0.0.1:${server.address().port}`, close: () => (server.closeAllConnections(), server.close()) };
}

/** Each caller sent its payment while nginx had no bridge to pass it to. */
async function answered502(before) {
  await until("each caller was answered 502", () => {
    const requests = stage.failures().slice(before);
    return callers.every(({ pos }) => requests.some((line) => line.includes(`/points-of-sale/${pos}/payments`)));
  });
}

const steps = {
  async "what each answer means"(caller) {
    const [sold, key] = [sale(), `key-of-${caller.name}`];
    const [first] = await caller.said(caller.pay(sold, { key }));
    assert.deepEqual([first.key, first.state, first.replayed], [key, "booked", false]);
    assert.equal(JSON.parse(first.text).Items, 1);
    const [again] = await caller.said(caller.pay(sold, { key }));
    assert.deepEqual([again.state, again.replayed, again.text], ["booked", true, first.text]);
    const [other] = await caller.said(caller.pay(sale(), { key }));
    assert.deepEqual([other.state, other.code], ["not-booked", "idempotency-key-reused"]);
    const [closed] = await caller.said(caller.pay(sale(), { pos: 7 }));
    assert.deepEqual([closed.state, closed.code], ["not-booked", "pos-password-rejected"]);
    assert.deepEqual(caller.kept(), []);
    assert.equal(await booked(sold), 1);

    const later = sale();
    const [refused] = await caller.said(caller.pay(later, { TOKEN: "no-such-token" }));
    assert.deepEqual([refused.state, refused.code, refused.tooOld], ["unknown", "unauthenticated", false]);
    assert.equal(caller.kept().length, 1, "what is not known is kept");
    const [file] = caller.kept().map((name) => path.join(caller.store, name));
    assert.equal(statSync(file).mode & 0o077, 0, "a sale may hold a password");
    const stored = readFileSync(file, "utf8");
    const begun = /("created_?[aA]t": ?)([\d.]+)/;
    const days = (text) => String(Number(text) * (1 - (8 * 86_400) / (Date.now() / 1000)));
    writeFileSync(file, stored.replace(begun, (_, name, at) => name + days(at)));
    const [old] = await caller.said(caller.start(["resume"]));
    assert.deepEqual([old.state, old.tooOld], ["unknown", true], "the bridge may have forgotten its key");
    assert.equal(await booked(later), 0);
    writeFileSync(file, stored);
    const [resumed] = await caller.said(caller.start(["resume"]));
    assert.deepEqual([resumed.key, resumed.state, resumed.replayed], [refused.key, "booked", false]);
    assert.deepEqual(caller.kept(), []);
    assert.equal(await booked(later), 1);

    const [codes] = await caller.said(caller.start(["refusals"]));
    assert.deepEqual(codes, refusals, "the refusals of docs/payments.md");
  },

  async "a proxy that does its worst"(caller) {
    const proxy = await worst(["reset", "page", "drip", "moved", "later", "half"]);
    try {
      const sold = sale();
      const begun = Date.now();
      const [outcome] = await caller.said(caller.pay(sold, { BRIDGE: proxy.url, TIMEOUT: "2" }));
      assert.deepEqual([outcome.state, outcome.replayed], ["booked", true]);
      assert.ok(Date.now() - begun > 8000, "two seconds of drops, two of Retry-After, and one after each other failure");
      assert.equal(await booked(sold), 1);
    } finally {
      proxy.close();
    }
  },
};

/** The reply is lost, the bridge is killed, it is away, it says that it does not know, the caller is killed. */
async function lost() {
  await stage.control("POST", "/faults", { command: "payitems", times: callers.length, action: "hang_after_apply" });
  const payments = callers.map((caller) => ({ caller, sold: sale() }));
  for (const payment of payments) payment.child = payment.caller.pay(payment.sold);
  await until("the gateway has booked both", async () => (await Promise.all(payments.map(({ sold }) => booked(sold)))).every(Boolean));
  const before = stage.failures().length;
  await stage.stop("SIGKILL");
  await answered502(before);
  await stage.serve();
  const authorization = { Authorization: `Bearer ${token}` };
  const listing = `${stage.bridge}/v1/instances/demo/payments`;
  let records;
  await until("both are recorded as unknown", async () => {
    ({ payments: records } = await (await fetch(`${listing}?state=unknown`, { headers: authorization })).json());
    return records.length === callers.length;
  });
  for (const { child } of payments) child.kill("SIGKILL");
  await Promise.all(payments.map(({ child }) => child.ended));
  for (const { caller, child } of payments) {
    assert.deepEqual(child.lines, [], `${caller.name} did not end by itself`);
    assert.equal(caller.kept().length, 1);
    const [unsettled] = await caller.said(caller.start(["resume"], { PATIENCE: "0" }));
    assert.deepEqual([unsettled.state, unsettled.code], ["unknown", "payment-outcome-unknown"]);
  }
  for (const { id } of records) {
    const record = await fetch(`${listing}/${id}`, { headers: authorization });
    const settled = await fetch(`${listing}/${id}/outcome`, {
      method: "PUT",
      headers: { ...authorization, "Content-Type": "application/json", "If-Match": record.headers.get("ETag") },
      body: JSON.stringify({ outcome: "booked", reason: "it is among the transactions" }),
    });
    assert.equal(settled.status, 200, await settled.text());
  }
  for (const { caller, sold } of payments) {
    const [outcome] = await caller.said(caller.start(["resume"]));
    assert.deepEqual([outcome.state, outcome.replayed], ["booked", true]);
    assert.deepEqual(caller.kept(), []);
    assert.equal(await booked(sold), 1, `${caller.name}: booked once`);
  }
}

/** The bridge is stopped before a sale, and started during it. */
async function away() {
  const before = stage.failures().length;
  await stage.stop();
  const payments = callers.map((caller) => ({ caller, sold: sale() }));
  for (const payment of payments) payment.child = payment.caller.pay(payment.sold);
  await answered502(before);
  await stage.serve();
  for (const { caller, sold, child } of payments) {
    const [outcome] = await caller.said(child);
    assert.deepEqual([outcome.state, outcome.replayed], ["booked", false]);
    assert.equal(await booked(sold), 1);
  }
}

/** Every listener hears what is broadcast from now on. */
async function heard(listeners) {
  const hear = new Set();
  await until("each hears a broadcast", async () => {
    const message = await stage.broadcast();
    await new Promise((later) => setTimeout(later, 300));
    for (const [caller, { lines, errors, exitCode }] of listeners) {
      assert.equal(exitCode, null, `${caller.name} ended: ${errors}`);
      if (lines.includes(`broadcast ${message}`)) hear.add(caller);
    }
    return hear.size === listeners.length;
  });
}
const told = (listeners, line) => until(`each was told: ${line}`, () => listeners.every(([, { lines }]) => lines.includes(line)));

try {
  await stage.serve();
  const listeners = callers.map((caller) => [caller, caller.start(["listen"])]);
  await told(listeners, "fetch-again start");
  await heard(listeners);
  for (const [name, step] of Object.entries(steps)) {
    await each(step);
    console.log(`${name}: as it should be`);
  }
  await lost();
  console.log("a sale whose reply is lost, over a killed bridge and a killed caller: booked once");
  await heard(listeners);
  await told(listeners, "fetch-again reset");
  await away();
  console.log("a sale while the bridge is away: booked once");
  await heard(listeners);

  let missed;
  await stage.cut(async () => { missed = await stage.broadcast(); });
  await told(listeners, `broadcast ${missed}`);

  for (const shard of ["exon", "cyton", "zeus"]) await stage.control("POST", `/shards/${shard}`, { alive: false });
  await until("there is no link", async () => (await fetch(`${stage.bridge}/readyz?require=gateway`)).status === 503);
  for (const shard of ["exon", "cyton", "zeus"]) await stage.control("POST", `/shards/${shard}`, { alive: true });
  await told(listeners, "fetch-again gap");
  await heard(listeners);
  for (const [caller, { lines }] of listeners) {
    const messages = lines.filter((line) => line.startsWith("broadcast "));
    assert.equal(new Set(messages).size, messages.length, `${caller.name} heard one twice`);
    const starts = lines.filter((line) => line === "fetch-again start");
    assert.equal(starts.length, 1, `${caller.name}: ${lines}`);
  }
  console.log("the event readers survive all of it, and tell when to fetch again");
  await each(async (caller) => {
    const refused = caller.start(["listen"], { TOKEN: "no-such-token" });
    assert.equal(await refused.ended, 1, caller.name);
    assert.match(refused.errors, /unauthenticated/, caller.name);
  });
  console.log("and end with an error where their token is refused");
} finally {
  await stage.end();
}
