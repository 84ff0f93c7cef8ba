// Messages exactly once and in the order of their `seq`, however they come.

import type { MessageView } from "./wire.js";

/** What may wait for the messages before it. More is not kept: the next join brings it. */
const AHEAD = 1_000;

/** `lastSeq` is the last message that the app was given; everything up to it, it has. */
export class Sequence {
  #ahead = new Map<number, MessageView>();

  constructor(public lastSeq = 0) {}

  /** What the app is to be given now, in order: nothing for what it has, nothing as long as one before is missing. */
  take(message: MessageView): MessageView[] {
    const { seq } = message;
    if (seq > this.lastSeq && (seq === this.lastSeq + 1 || this.#ahead.size < AHEAD)) this.#ahead.set(seq, message);
    const ready: MessageView[] = [];
    for (let next; (next = this.#ahead.get(this.lastSeq + 1)); ) {
      this.lastSeq += 1;
      this.#ahead.delete(this.lastSeq);
      ready.push(next);
    }
    return ready;
  }

  /** Whether something has come that cannot be given to the app yet. */
  get isWaiting(): boolean {
    return this.#ahead.size > 0;
  }
}
