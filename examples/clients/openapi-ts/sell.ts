// Lists products, sells one, repeats the sale, and handles an error, with a client generated from the bridge's OpenAPI
// document.
//
//     npm ci && npm run generate && npm run build
//     BRIDGE_URL=http://127.0.0.1:8080 BRIDGE_TOKEN=… npm start

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { setTimeout as wait } from "node:timers/promises";
import { client } from "./generated/bridge/client.gen.js";
import { getLicense, listPayments, listProducts, payItems, type PayItems, type Problem } from "./generated/bridge/index.js";

client.setConfig({
  baseUrl: process.env.BRIDGE_URL ?? "http://127.0.0.1:8080",
  auth: () => process.env.BRIDGE_TOKEN,
});
const path = { instance: "demo", pos_id: 1 };

/** Books a sale once: repeats with the same key while that is safe and may succeed. */
async function sell(key: string, body: PayItems): Promise<{ items: unknown; replayed: boolean } | Problem> {
  for (;;) {
    const { data, error, response } = await payItems({ path, headers: { "Idempotency-Key": key }, body });
    if (data) return { items: data.Items, replayed: response?.headers.get("Idempotent-Replayed") === "true" };
    // The connection failed, or a proxy answered: the sale may be booked.
    if (typeof error.retryable !== "boolean") throw error;
    // The outcome is unknown until a late reply arrives or a person settles the payment. Stop repeating.
    if (error.code === "payment-outcome-unknown" || !error.retryable) return error;
    await wait((error.retry_after ?? 1) * 1000);
  }
}

const { data: licence } = await getLicense({ path, throwOnError: true });
console.log(`licensed to ${licence.License.Name}`);
const { data: list } = await listProducts({ path, throwOnError: true });
for (const product of list.Products) console.log(`${product.ID}  ${product.ProductName}  ${product.Price.toFixed(2)}`);
const [first] = list.Products;
assert(first, "something is sold there");

const key = randomUUID();
const sale: PayItems = { PaymentMethod: 1, Products: [{ ID: first.ID, Amount: 2 }] };
assert.deepEqual(await sell(key, sale), { items: 1, replayed: false });
assert.deepEqual(await sell(key, sale), { items: 1, replayed: true });
console.log(`sold two of ${first.ProductName}, once, although it was asked for twice`);

const { data: found } = await listPayments({ path, query: { idempotency_key: key } });
assert.deepEqual(found?.payments.map((payment) => payment.state), ["booked"]);

const mistake = await sell(key, { ...sale, Products: [{ ID: first.ID, Amount: 3 }] });
assert("code" in mistake && mistake.code === "idempotency-key-reused");
console.log(`another sale under its key: ${mistake.status} ${mistake.code}`);
