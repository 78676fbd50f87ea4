/** Payments that are booked at most once, and broadcasts without loss, through the ConcertPOS bridge. */
export { Bridge, type BridgeOptions, type EventOptions, type PayOptions } from "./bridge.js";
export type { Broadcast, BridgeEvent, FetchAgain } from "./events.js";
export { Events } from "./events.js";
export { type Problem, Refused } from "./http.js";
export { NOT_BOOKED, type Outcome, type Payment, type Store } from "./payments.js";
