// What tests/browser/packages.mjs does with the package: `driver.js pay POS SALE KEY`, `driver.js resume`, `driver.js listen`.
import { Bridge, type BridgeOptions, NOT_BOOKED, type Outcome, Refused } from "concertpos-bridge";
import { FileStore } from "concertpos-bridge/file-store";

const { BRIDGE = "", TOKEN = "", STORE, TIMEOUT = "20", PATIENCE = "60" } = process.env;
const options: BridgeOptions = { timeout: Number(TIMEOUT), ...(STORE ? { store: new FileStore(STORE) } : {}) };
const bridge = new Bridge(BRIDGE, TOKEN, "demo", options);
const patience = Number(PATIENCE);

function tell(outcome: Outcome): void {
  const said = outcome.state === "booked" ? { replayed: outcome.replayed, text: outcome.text }
    : { code: outcome.problem?.code ?? null, ...(outcome.state === "unknown" ? { tooOld: outcome.tooOld } : {}) };
  console.log(JSON.stringify({ key: outcome.payment.key, state: outcome.state, ...said }));
}

const [command, posId, sale, key] = process.argv.slice(2);
if (command === "pay" && posId && sale) {
  tell(await bridge.pay(Number(posId), JSON.parse(sale) as object, { patience, ...(key ? { key } : {}) }));
} else if (command === "resume") {
  for await (const outcome of bridge.resume({ patience })) tell(outcome);
} else if (command === "listen") {
  try {
    for await (const event of bridge.events()) {
      console.log(event.kind === "broadcast" ? `broadcast ${event.message}` : `fetch-again ${event.why}`);
    }
  } catch (fault) {
    if (!(fault instanceof Refused)) throw fault;
    console.error(fault.message);
    process.exitCode = 1;
  }
} else if (command === "refusals") {
  console.log(JSON.stringify([...NOT_BOOKED].sort()));
} else {
  console.error("pay POS SALE [KEY], resume, listen or refusals");
  process.exitCode = 2;
}
