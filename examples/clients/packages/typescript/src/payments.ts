/** What a payment is, how it may end, and where it is kept meanwhile. */
import type { Problem } from "./http.js";

/** Refusals of the sale. Any other error concerns one request: an earlier request with the same key may have booked the sale. */
export const NOT_BOOKED: ReadonlySet<string> = new Set([
  "gateway-rejected-parameters",
  "pos-password-rejected",
  "gateway-credentials-rejected",
  "license-invalid",
  "gateway-error",
  "idempotency-key-reused",
]);

/** A sale and its key. `sale` is the JSON that is sent, `createdAt` in milliseconds since 1970. */
export interface Payment {
  readonly instance: string;
  readonly posId: number;
  readonly key: string;
  readonly sale: string;
  readonly createdAt: number;
}

/**
 * How a payment ended.
 *
 * - `booked`: `text` is the gateway's reply as it came, with exact prices; `replayed` says whether an earlier request booked it.
 * - `not-booked`: certainly not.
 * - `unknown`: it may be booked or not. Never sell it with another key; resume it, or ask the operator. `tooOld`: nothing was
 *   sent, since the bridge may have forgotten the key.
 */
export type Outcome =
  | { readonly state: "booked"; readonly payment: Payment; readonly reply: Readonly<Record<string, unknown>>;
      readonly text: string; readonly replayed: boolean }
  | { readonly state: "not-booked"; readonly payment: Payment; readonly problem: Problem }
  | { readonly state: "unknown"; readonly payment: Payment; readonly problem: Problem | undefined; readonly tooOld: boolean };

/** Keeps payments until their outcome is known. */
export interface Store {
  /**
   * Keeps a payment, durably before it resolves. One that is kept under this key already is returned; rejects where that is
   * another sale.
   */
  begin(payment: Payment): Promise<Payment>;
  /** Its outcome is known. Nothing happens where it is not kept. */
  end(payment: Payment): Promise<void>;
  /** What is kept, oldest first. */
  open(): Promise<Payment[]>;
}
