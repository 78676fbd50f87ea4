// Holds an AsyncAPI document against the specification, by its own parser: `node asyncapi.mjs FILE`.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { Parser } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(await readFile(process.argv[2], "utf8"));
// 0: an error, 1: a warning.
const faults = diagnostics.filter(({ severity }) => severity <= 1);
for (const { code, message, path } of faults) console.error(`${path.join("/")}: ${code}: ${message}`);
assert.equal(faults.length, 0);
assert(document, "no document");
const messages = document.operations().get("streamEvents").messages().all().map((message) => message.id()).sort();
assert.deepEqual(messages, ["broadcast", "cursor", "gap", "overloaded", "ready", "reset"]);
