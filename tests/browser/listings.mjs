// Runs the programs of docs/events.md as they stand there, behind nginx as it is configured there, while the bridge is
// restarted twice: each must hear every broadcast that follows, and end with an error where its token is refused.
import assert from "node:assert/strict";
import { readFileSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import { chromium } from "playwright-core";
import { proxied, until } from "./proxied.mjs";

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

const stage = await proxied(program, {
  token,
  scopes: ["events"],
  locations: (bridge) => `location = /page { default_type text/html; return 200 "<!doctype html>"; }
    ${listing("Behind a proxy", "nginx").replace("127.0.0.1:8080", bridge)}`,
});
const { folder, run } = stage;

/// As the reader of the document would: the listing in a file, and the rest from the environment.
const environment = (secret) => ({ ...process.env, BRIDGE: stage.proxy, TOKEN: secret });
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
  await page.goto(`${stage.proxy}/page`);
  await page.evaluate(([code, bridge, token]) => {
    const run = new Function("bridge", "token", "refetch", code);
    run(bridge, token, () => window.tell("refetch"));
  }, [listing("In a browser", "js"), stage.proxy, token]);
  return listener;
}

try {
  symlinkSync(path.join(import.meta.dirname, "node_modules"), path.join(folder, "node_modules"));
  await stage.serve();
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
        const message = await stage.broadcast();
        await new Promise((later) => setTimeout(later, 300));
        for (const [name, { lines, exitCode, errors }] of listeners) {
          assert.equal(exitCode ?? null, null, `${name} ended: ${errors}`);
          if (lines.some((line) => line.endsWith(message))) heard.add(name);
        }
        return heard.size === listeners.length;
      });
      page.lines.length = 0;
      await until("the page hears a broadcast", async () => {
        await stage.control("POST", "/broadcasts", { message: "updatepos", parameters: {} });
        return page.lines.length > 0;
      });
      if (restarts === 2) break;
      await stage.stop();
      const before = stage.failures();
      await until("they were answered 502", () => {
        const since = stage.failures().slice(before.length);
        const fromPage = since.filter((line) => line.includes("access_token")).length;
        return fromPage >= 1 && since.length - fromPage >= listeners.length;
      }, 90_000);
      await stage.serve();
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
  await stage.end();
}
