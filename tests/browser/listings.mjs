// Runs the programs of docs/events.md as they stand there, behind nginx as it is configured there, while the bridge is
// restarted twice: each must hear every broadcast that follows, and end with an error where its token is refused.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const [program, python] = process.argv.slice(2);
const document = readFileSync(path.join(import.meta.dirname, "../../docs/events.md"), "utf8");
const token = "a-token-of-a-listing";

/// The one listing in `language` below `heading`.
function listing(heading, language) {
  const section = document.split(/^## /m).find((one) => one.startsWith(`${heading}\n`));
  const blocks = [...(section ?? "").matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, "gms"))];
  assert.equal(blocks.length, 1, `${heading}: ${blocks.length} listings in ${language}`);
  return blocks[0][1];
}

async function free() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await new Promise((listening) => server.once("listening", listening));
  const { port } = server.address();
  await new Promise((closed) => server.close(closed));
  return `127.0.0.1:${port}`;
}

async function until(what, holds, patience = 30_000) {
  for (const begun = Date.now(); !(await holds()); await new Promise((later) => setTimeout(later, 50))) {
    if (Date.now() - begun > patience) throw new Error(`it never came to this: ${what}`);
  }
}

const children = new Set();
function run(command, args, options = {}) {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], ...options });
  children.add(child);
  child.ended = new Promise((ended) => child.once("exit", (code) => { children.delete(child); ended(code); }));
  child.lines = [];
  createInterface({ input: child.stdout }).on("line", (line) => child.lines.push(line));
  child.errors = "";
  child.stderr.on("data", (data) => { child.errors += data; });
  return child;
}

const [gateway, control, bridge, proxy] = [await free(), await free(), await free(), await free()];
const folder = mkdtempSync(path.join(tmpdir(), "listings-"));
const settings = path.join(folder, "bridge.toml");
writeFileSync(settings, `
[server]
listen = "${bridge}"
shutdown_delay = "0s"
[gateway]
url = "ws://${gateway}/{shard}/?instance={instance}&Content-Type={format}"
[instances.demo]
api_key = "demo-key"
[auth.tokens.listing]
sha256 = ["${createHash("sha256").update(token).digest("hex")}"]
instances = ["demo"]
scopes = ["events"]
[payments]
journal = "${folder}/journal"
[cache]
store = "${folder}/cache"
[telemetry]
log = "warn"
`);
const nginx = path.join(folder, "nginx.conf");
const errors = path.join(folder, "nginx.log");
const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
writeFileSync(nginx, `daemon off;
master_process off;
pid ${folder}/pid;
user root;
events {}
http {
  access_log off;
  ${temporary.map((name) => `${name}_temp_path ${folder}/${name};`).join("\n  ")}
  server {
    listen ${proxy};
    location = /page { default_type text/html; return 200 "<!doctype html>"; }
    ${listing("Behind a proxy", "nginx").replace("127.0.0.1:8080", bridge)}
  }
}
`);

let serving;
async function serve() {
  serving = run(program, ["serve", "--config", settings]);
  await until("the bridge serves", async () => {
    const answer = await fetch(`http://${bridge}/readyz?require=gateway`).catch(() => undefined);
    return answer?.status === 200;
  });
}

/// What nginx could not pass on, a line each.
const failures = () => readFileSync(errors, "utf8").split("\n").filter((line) => line.includes("connect() failed"));

let told = 0;
async function broadcast() {
  const message = `told ${++told}`;
  const body = JSON.stringify({ message, parameters: {} });
  assert.equal((await fetch(`http://${control}/broadcasts`, { method: "POST", body })).status, 200);
  return message;
}

/// As the reader of the document would: the listing in a file, and the rest from the environment.
const environment = (secret) => ({ ...process.env, BRIDGE: `http://${proxy}`, TOKEN: secret });
const programs = {
  "Node.js": (secret) => {
    writeFileSync(path.join(folder, "listen.mjs"), listing("Node.js", "js"));
    return run(process.execPath, [path.join(folder, "listen.mjs")], { env: environment(secret) });
  },
  Python: (secret) => {
    writeFileSync(path.join(folder, "listen.py"), listing("Python", "python"));
    return run(python, [path.join(folder, "listen.py")], { env: environment(secret) });
  },
};

/// The listing for browsers, with a `refetch` that tells what it was called for.
async function inBrowser(browser) {
  const page = await browser.newPage();
  const listener = { lines: [] };
  await page.exposeFunction("tell", (line) => listener.lines.push(line));
  await page.goto(`http://${proxy}/page`);
  await page.evaluate(([code, bridge, token]) => {
    const run = new Function("bridge", "token", "refetch", code);
    run(bridge, token, () => window.tell("refetch"));
  }, [listing("In a browser", "js"), `http://${proxy}`, token]);
  return listener;
}

try {
  symlinkSync(path.join(import.meta.dirname, "node_modules"), path.join(folder, "node_modules"));
  run(program, ["simulate", "--listen", gateway, "--control", control, "--limits", "off"]);
  run("nginx", ["-c", nginx, "-e", errors]);
  await serve();
  const browser = await chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync"],
  });
  try {
    const listeners = Object.entries(programs).map(([name, start]) => [name, start(token)]);
    const page = await inBrowser(browser);
    for (let restarts = 0; ; restarts++) {
      // Until all listen: a broadcast that none has missed.
      const heard = new Set();
      await until("each listing hears a broadcast", async () => {
        const message = await broadcast();
        await new Promise((later) => setTimeout(later, 300));
        for (const [name, { lines, exitCode, errors }] of listeners) {
          assert.equal(exitCode ?? null, null, `${name} ended: ${errors}`);
          if (lines.some((line) => line.endsWith(message))) heard.add(name);
        }
        return heard.size === listeners.length;
      });
      page.lines.length = 0;
      const updated = JSON.stringify({ message: "updatepos", parameters: {} });
      await until("the page hears a broadcast", async () => {
        await fetch(`http://${control}/broadcasts`, { method: "POST", body: updated });
        return page.lines.length > 0;
      });
      if (restarts === 2) break;
      serving.kill("SIGTERM");
      await serving.ended;
      const before = failures();
      await until("they were answered 502", () => {
        const since = failures().slice(before.length);
        const fromPage = since.filter((line) => line.includes("access_token")).length;
        return fromPage >= 1 && since.length - fromPage >= listeners.length;
      }, 90_000);
      await serve();
    }
    for (const [name, { lines }] of listeners) {
      assert.ok(lines.includes("fetch afresh"), `${name} was not told that the log had begun anew`);
    }
    console.log("the listings of docs/events.md survive two restarts behind nginx");
  } finally {
    await browser.close();
  }
  for (const [name, start] of Object.entries(programs)) {
    const refused = start("no-such-token");
    const code = await Promise.race([refused.ended, new Promise((late) => setTimeout(late, 20_000, "still running"))]);
    assert.equal(code, 1, `${name} with a token that is not known: ${code}`);
    assert.match(refused.errors, /401/, name);
  }
  console.log("and end with an error where their token is refused");
} finally {
  await Promise.all([...children].map((child) => (child.kill("SIGTERM"), child.ended)));
  rmSync(folder, { recursive: true, force: true });
}
