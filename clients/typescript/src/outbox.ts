// What was said and is not known to be stored: which of it may be sent now. No clock and no I/O.

/** So many may be without an answer at once. */
export const WINDOW = 20;

/** A message before it is stored. Its `clientMsgId` makes sending it again harmless. */
export interface Draft {
  readonly sessionId: string;
  readonly clientMsgId: string;
  readonly body: string;
}

/**
 * Drafts in the order in which they were said, and which of them are on their way.
 *
 * After a loss or a refusal one alone goes first: only when it is stored do the others follow, so that none of them gets before it.
 */
export class Outbox {
  #drafts = new Map<string, Draft>();
  #onTheirWay = new Set<string>();
  #oneAlone = true;
  #notBeforeMs = 0;

  constructor(private readonly window = WINDOW) {}

  get size(): number {
    return this.#drafts.size;
  }

  has(clientMsgId: string): boolean {
    return this.#drafts.has(clientMsgId);
  }

  all(): Draft[] {
    return [...this.#drafts.values()];
  }

  add(draft: Draft): void {
    if (this.has(draft.clientMsgId)) throw new RangeError(`clientMsgId ${draft.clientMsgId} is waiting already`);
    this.#drafts.set(draft.clientMsgId, draft);
  }

  /** What to ask the server about: those that may have been sent are always among the first. */
  firstIds(limit: number): string[] {
    return [...this.#drafts.keys()].slice(0, limit);
  }

  /** The next to send, which is on its way from now on; null: nothing at present. */
  next(nowMs: number): Draft | null {
    if (nowMs < this.#notBeforeMs || this.#onTheirWay.size >= (this.#oneAlone ? 1 : this.window)) return null;
    for (const [clientMsgId, draft] of this.#drafts) {
      if (!this.#onTheirWay.has(clientMsgId)) {
        this.#onTheirWay.add(clientMsgId);
        return draft;
      }
    }
    return null;
  }

  /** How long a refusal still forbids sending; null: it does not. */
  waitMs(nowMs: number): number | null {
    return this.#drafts.size > 0 && nowMs < this.#notBeforeMs ? this.#notBeforeMs - nowMs : null;
  }

  /** It is safe: by an acknowledgement, by a join, or because it came back as a message. False: that was known. */
  stored(clientMsgId: string): boolean {
    // Only the one that went alone says that the others may follow; what a join finds was sent before.
    if (this.#onTheirWay.has(clientMsgId) && clientMsgId === this.#drafts.keys().next().value) this.#oneAlone = false;
    this.#onTheirWay.delete(clientMsgId);
    return this.#drafts.delete(clientMsgId);
  }

  /** It will never be stored. False: that was known. */
  failed(clientMsgId: string): boolean {
    this.#onTheirWay.delete(clientMsgId);
    return this.#drafts.delete(clientMsgId);
  }

  /** It was not stored, or nobody knows: it is to be sent again. */
  again(clientMsgId: string, notBeforeMs = 0): void {
    this.#onTheirWay.delete(clientMsgId);
    this.#oneAlone = true;
    this.#notBeforeMs = Math.max(this.#notBeforeMs, notBeforeMs);
  }

  /** Whatever was waited for has happened. */
  now(): void {
    this.#notBeforeMs = 0;
  }

  /** The connection is gone, and with it every answer. */
  lost(): void {
    this.#onTheirWay.clear();
    this.#oneAlone = true;
    this.#notBeforeMs = 0;
  }
}
