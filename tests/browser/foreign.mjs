// Opens pages of another site and of another port in Chromium and has them use a bridge without tokens on this machine, in
// every way that needs no leave: nothing is answered and nothing is spent. And has them put the bridge's pages in a frame.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import http from "node:http";
import { chromium } from "playwright-core";

const program = process.argv[2];
const PATIENCE_MS = 30_000;
const started = [];

/** The demonstration on a port of its own, and what it printed. */
async function demo(port, ...flags) {
  const listen = `127.0.0.1:${port}`;
  const child = spawn(program, ["demo", "--listen", listen, ...flags], { stdio: ["ignore", "pipe", "ignore"] });
  started.push(child);
  let said = "";
  for await (const chunk of child.stdout) {
    said += chunk;
    if (said.includes("The API, to browse")) break;
  }
  const [, token] = /Token of this run: (\S+)/.exec(said) ?? [];
  const base = `http://${listen}`;
  for (const end = Date.now() + PATIENCE_MS; ;) {
    if (await fetch(`${base}/readyz?require=gateway`).then((answer) => answer.ok, () => false)) return { base, listen, token };
    assert.ok(Date.now() < end, "the bridge never had its links");
    await new Promise((later) => setTimeout(later, 50));
  }
}

/** A server of pages that are not the bridge's. */
async function elsewhere() {
  const server = http.createServer((_, answer) => answer.setHeader("Content-Type", "text/html").end("<!doctype html><title>elsewhere</title>"));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return server;
}

const first = 20000 + (process.pid % 20000);
const open = await demo(first);
const guarded = await demo(first + 1, "--token");
const server = await elsewhere();
const { port } = server.address();
// The name decides what the browser calls another site; another port alone is the same site.
const foreigners = { "cross-site": `http://shop.example:${port}/`, "same-site": `http://127.0.0.1:${port}/` };

const document = await (await fetch(`${open.base}/openapi.json`)).json();
const filled = (path) => path.replace("{instance}", "demo").replace("{pos_id}", "1").replace("{command}", "getdeposit")
  .replace("{uuid}", "d").replace("{payment_id}", "0190b7a4-0000-7000-8000-000000000000").replace("{shard}", "exon");
const routes = Object.entries(document.paths).map(([path, item]) => [filled(path), Object.keys(item).filter((key) => key !== "parameters")]);
assert.ok(routes.length >= 15, `${routes.length} routes`);
for (const path of ["/livez", "/readyz", "/openapi.json", "/metrics", "/", "/dashboard/main.js", "/docs", "/docs/", "/docs/index.html", "/problems", "/problems/forbidden"]) {
  routes.push([path, ["get"]]);
}

/** What could only have been spent by a page. */
async function spent() {
  const status = await (await fetch(`${open.base}/v1/bridge`)).json();
  const { payments, cache, subscribers } = status;
  return { payments, copies: cache.copies, subscribers, used: status.instances[0].budgets.map(({ command, used_points }) => [command, used_points]) };
}

/** Has the page that this runs in ask in every way that needs no leave. */
async function askWithoutLeave([base, routes, sockets]) {
  const image = (url) => new Promise((done) => {
    const one = new Image();
    one.onload = one.onerror = done;
    one.src = url;
  });
  const stream = (url) => new Promise((done) => {
    const one = new EventSource(url);
    one.onopen = () => { one.close(); done("open"); };
    one.onerror = () => { one.close(); done("closed"); };
  });
  const socket = (url) => new Promise((done) => {
    const one = new WebSocket(url);
    one.onopen = () => { one.close(); done("open"); };
    one.onerror = () => done("closed");
  });
  const form = (url, method) => new Promise((done) => {
    const [frame, one] = [window.document.createElement("iframe"), window.document.createElement("form")];
    frame.name = `frame-${Math.random()}`;
    [one.action, one.method, one.target] = [url, method, frame.name];
    frame.onload = () => { if (one.isConnected && one.sent) done(); };
    // A stream that is answered never ends.
    setTimeout(done, 3000);
    window.document.body.append(frame, one);
    one.sent = true;
    one.submit();
  });
  const opened = [];
  for (const [path, methods] of routes) {
    const url = base + path;
    await image(url);
    for (const mode of ["no-cors", "cors"]) await fetch(url, { mode, credentials: "include" }).catch(() => {});
    if (methods.includes("post")) {
      await fetch(url, { mode: "no-cors", method: "POST", body: "{}" }).catch(() => {});
      await form(url, "post");
    }
    for (const method of methods.filter((method) => method === "put")) {
      await fetch(url, { method: method.toUpperCase(), headers: { "Content-Type": "application/json" }, body: '{"cordoned":true}' }).catch(() => {});
    }
    await form(url, "get");
  }
  if (await stream(`${base}/v1/instances/demo/events`) === "open") opened.push("an event stream");
  for (const path of sockets) {
    if (await socket(`${base.replace("http", "ws")}${path}`) === "open") opened.push(`a WebSocket at ${path}`);
  }
  return opened;
}

/** Follows a link of a page, and says what the answer's status is. */
async function follow(page, address, url) {
  await page.goto(address);
  const [answer] = await Promise.all([
    page.waitForNavigation(),
    page.evaluate((url) => {
      const link = window.document.createElement("a");
      link.href = url;
      window.document.body.append(link);
      link.click();
    }, url),
  ]);
  return answer.status();
}

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP shop.example 127.0.0.1"],
});

try {
  for (const [site, address] of Object.entries(foreigners)) {
    const page = await browser.newPage();
    const answers = [];
    page.on("response", (answer) => {
      const url = new URL(answer.url());
      if (url.host === open.listen) answers.push([answer.status(), answer.request().method(), url.pathname, answer.request().resourceType()]);
    });
    await page.goto(address);
    const before = await spent();
    // Pages served by this machine may open a WebSocket: a till under development.
    const sockets = site === "cross-site" ? ["/?instance=demo", "/gateway?instance=demo", "/demo/"] : [];
    const opened = await page.evaluate(askWithoutLeave, [open.base, routes, sockets]);
    assert.deepEqual(opened, [], `${site}: opened`);
    assert.deepEqual(answers.filter(([status]) => status !== 403), [], `${site}: answered`);
    for (const [path] of routes) assert.ok(answers.some((answer) => answer[2] === path), `${site}: ${path} was not asked`);
    // The licence is the bridge's own affair; what the pages asked for is not.
    const after = await spent();
    const own = ([command]) => command !== "getlicense";
    assert.deepEqual(after.used.filter(own), before.used.filter(own), `${site}: points were spent`);
    assert.deepEqual([after.payments, after.subscribers], [before.payments, before.subscribers], `${site}: something was done`);

    // A link may lead to the pages for people, and to nothing that costs anything.
    for (const path of ["/", "/docs/", "/docs", "/problems", "/problems/forbidden"]) {
      assert.equal(await follow(page, address, open.base + path), 200, `${site}: ${path} by a link`);
    }
    const command = `${open.base}/v1/instances/demo/config`;
    assert.equal(await follow(page, address, command), 403, `${site}: a command by a link`);
    await page.close();

    // With tokens the pages are open to all, and still nobody's to frame.
    const framing = await browser.newPage();
    const refused = [];
    framing.on("console", (message) => { if (/frame/i.test(message.text())) refused.push(message.text()); });
    for (const path of ["/", "/docs/", "/problems", "/problems/forbidden"]) {
      await framing.goto(address);
      refused.length = 0;
      await framing.evaluate((url) => new Promise((done) => {
        const frame = window.document.createElement("iframe");
        frame.onload = frame.onerror = done;
        frame.src = url;
        window.document.body.append(frame);
      }), guarded.base + path);
      assert.ok(refused.length > 0, `${site}: ${path} is shown in a foreign frame`);
      const shown = await framing.frames()[1].evaluate(() => window.document.body?.innerText ?? "").catch(() => "");
      assert.ok(!/Problems|ConcertPOS|What happened/.test(shown), `${site}: ${path} is in the frame: ${shown}`);
    }
    await framing.close();
  }

  // The bridge's own page works as ever without tokens.
  const own = await browser.newPage();
  await own.goto(`${open.base}/`);
  await own.locator(".shard").first().waitFor({ timeout: PATIENCE_MS });
  console.log(`pages of ${Object.keys(foreigners).length} foreign origins got nothing of ${routes.length} routes, and framed nothing`);
} finally {
  await browser.close();
  server.close();
  for (const child of started.filter((child) => child.exitCode === null)) {
    child.kill("SIGTERM");
    await once(child, "exit");
  }
}
