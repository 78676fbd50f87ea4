// A simulated gateway, nginx, and a bridge between them that can be stopped, killed and started again.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";

export async function until(what, holds, patience = 30_000) {
  for (const begun = Date.now(); !(await holds()); await new Promise((later) => setTimeout(later, 50))) {
    if (Date.now() - begun > patience) throw new Error(`it never came to this: ${what}`);
  }
}

async function free() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await new Promise((listening) => server.once("listening", listening));
  const { port } = server.address();
  await new Promise((closed) => server.close(closed));
  return `127.0.0.1:${port}`;
}

/** Starts all but the bridge. `locations(bridge)` are nginx's, `token` is one with `scopes`. */
export async function proxied(program, { token, scopes, locations }) {
  const children = new Set();
  const run = (command, args, options = {}) => {
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], ...options });
    children.add(child);
    child.ended = new Promise((ended) => child.once("exit", (code) => { children.delete(child); ended(code); }));
    child.lines = [];
    createInterface({ input: child.stdout }).on("line", (line) => child.lines.push(line));
    child.errors = "";
    child.stderr.on("data", (data) => { child.errors += data; });
    return child;
  };

  const [gateway, control, bridge, proxy] = [await free(), await free(), await free(), await free()];
  const folder = mkdtempSync(path.join(tmpdir(), "proxied-"));
  const settings = path.join(folder, "bridge.toml");
  writeFileSync(settings, `
[server]
listen = "${bridge}"
shutdown_delay = "0s"
[gateway]
url = "ws://${gateway}/{shard}/?instance={instance}&Content-Type={format}"
[instances.demo]
api_key = "demo-key"
[auth.tokens.caller]
sha256 = ["${createHash("sha256").update(token).digest("hex")}"]
instances = ["demo"]
scopes = ${JSON.stringify(scopes)}
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
    ${locations(bridge)}
  }
}
`);
  run(program, ["simulate", "--listen", gateway, "--control", control, "--limits", "off"]);
  const proxying = () => run("nginx", ["-c", nginx, "-e", errors]);

  let serving;
  let passing = proxying();
  let told = 0;
  const ask = async (method, path, body) => {
    const answer = await fetch(`http://${control}${path}`, { method, body: body && JSON.stringify(body) });
    assert.ok(answer.ok, `${method} ${path}: ${answer.status}`);
    return answer.json();
  };
  return {
    bridge: `http://${bridge}`,
    proxy: `http://${proxy}`,
    folder,
    run,
    async serve() {
      serving = run(program, ["serve", "--config", settings]);
      await until("the bridge serves", async () => {
        const answer = await fetch(`http://${bridge}/readyz?require=gateway`).catch(() => undefined);
        return answer?.status === 200;
      });
    },
    async stop(signal = "SIGTERM") {
      serving.kill(signal);
      await serving.ended;
    },
    /** Runs `meanwhile` while there is no nginx. */
    async cut(meanwhile) {
      passing.kill("SIGTERM");
      await passing.ended;
      await meanwhile();
      passing = proxying();
    },
    /** Asks the simulated gateway's control endpoint. */
    control: ask,
    /** Broadcasts a message that is like no other, and returns it. */
    async broadcast() {
      const message = `told ${++told}`;
      await ask("POST", "/broadcasts", { message, parameters: {} });
      return message;
    },
    /** What nginx could not pass on, a line each. */
    failures: () => readFileSync(errors, "utf8").split("\n").filter((line) => line.includes("connect() failed")),
    async end() {
      await Promise.all([...children].map((child) => (child.kill("SIGTERM"), child.ended)));
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
