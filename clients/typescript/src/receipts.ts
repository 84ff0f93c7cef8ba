// Which receipts are still to be told: what this device has and has shown, against what the server has confirmed. No I/O.

import type { Mark } from "./marks.js";

/** One event that says it for all messages up to `uptoSeq`. */
export interface Report {
  readonly event: "mark_seen" | "message_delivered";
  readonly uptoSeq: number;
}

/** What arrived and what was read, by position. Only the last position counts, so many messages are one event. */
export class Receipts {
  #deliveredSeq = 0;
  #seenSeq = 0;

  /** A message of somebody else is on this device. */
  arrived(seq: number): void {
    this.#deliveredSeq = Math.max(this.#deliveredSeq, seq);
  }

  /** The person has read everything up to it. */
  seen(seq: number): void {
    this.#seenSeq = Math.max(this.#seenSeq, seq);
  }

  /** What to tell next. Having seen says that it was delivered as well. */
  due(confirmed: Mark): Report | null {
    if (this.#seenSeq > confirmed.seenSeq) return { event: "mark_seen", uptoSeq: this.#seenSeq };
    if (this.#deliveredSeq > confirmed.deliveredSeq) return { event: "message_delivered", uptoSeq: this.#deliveredSeq };
    return null;
  }
}
