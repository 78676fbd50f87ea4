// Lists products, sells one, repeats the sale, and handles an error, with a client generated from the bridge's OpenAPI
// document.
//
//     npm ci && npm run generate && npm run build
//     BRIDGE_URL=http://127.0.0.1:8080 BRIDGE_TOKEN=… npm start

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { setTimeout as wait } from "node:timers/promises";
import createClient from "openapi-fetch";
import type { components, paths } from "./generated/bridge.js";

type Problem = components["schemas"]["Problem"];
type Sale = components["schemas"]["PayItems"];

const bridge = createClient<paths>({
  baseUrl: process.env.BRIDGE_URL ?? "http://127.0.0.1:8080",
  headers: { Authorization: `Bearer ${process.env.BRIDGE_TOKEN}` },
});
const path = { instance: "demo", pos_id: 1 };

/** Books a sale once: repeats with the same key while that is safe and may succeed. */
async function sell(key: string, body: Sale): Promise<{ items: unknown; replayed: boolean } | Problem> {
  for (;;) {
    const { data, error, response } = await bridge.POST("/v1/instances/{instance}/points-of-sale/{pos_id}/payments", {
      params: { path, header: { "Idempotency-Key": key } },
      body,
    });
    if (data) return { items: data.Items, replayed: response.headers.get("Idempotent-Replayed") === "true" };
    // A proxy answered: the sale may be booked.
    if (typeof error.retryable !== "boolean") throw error;
    // The outcome is unknown until a late reply arrives or a person settles the payment. Stop repeating.
    if (error.code === "payment-outcome-unknown" || !error.retryable) return error;
    await wait((error.retry_after ?? 1) * 1000);
  }
}

const { data: licence } = await bridge.GET("/v1/instances/{instance}/license", { params: { path } });
console.log(`licensed to ${licence?.License.Name}`);
const { data: list, error } = await bridge.GET("/v1/instances/{instance}/points-of-sale/{pos_id}/products", {
  params: { path },
});
if (error) throw new Error(`${error.code}: ${error.detail}`);
for (const product of list.Products) console.log(`${product.ID}  ${product.ProductName}  ${product.Price.toFixed(2)}`);
const [first] = list.Products;
assert(first, "something is sold there");

const key = randomUUID();
const sale: Sale = { PaymentMethod: 1, Products: [{ ID: first.ID, Amount: 2 }] };
const sold = await sell(key, sale);
assert.deepEqual(sold, { items: 1, replayed: false });
assert.deepEqual(await sell(key, sale), { items: 1, replayed: true });
console.log(`sold two of ${first.ProductName}, once, although it was asked for twice`);

const { data: found } = await bridge.GET("/v1/instances/{instance}/payments", {
  params: { path, query: { idempotency_key: key } },
});
assert.deepEqual(found?.payments.map((payment) => payment.state), ["booked"]);

const mistake = await sell(key, { ...sale, Products: [{ ID: first.ID, Amount: 3 }] });
assert("code" in mistake && mistake.code === "idempotency-key-reused");
console.log(`another sale under its key: ${mistake.status} ${mistake.code}`);
