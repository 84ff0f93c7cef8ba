// Where an app keeps what was said and not yet stored, so that being killed loses nothing.

import type { Draft } from "./outbox.js";

/** Drafts by session. `put` returns once the draft is safe; forgetting one too late is harmless, it is only sent again. */
export interface Storage {
  /** In the order of `put`. */
  load(sessionId: string): Promise<Draft[]>;
  put(draft: Draft): Promise<void>;
  /** Harmless for those that are not there. */
  drop(sessionId: string, clientMsgIds: readonly string[]): Promise<void>;
}

/** As long as the page or the process lives. */
export class MemoryStorage implements Storage {
  #drafts = new Map<string, Draft>();

  async load(sessionId: string): Promise<Draft[]> {
    return [...this.#drafts.values()].filter((draft) => draft.sessionId === sessionId);
  }

  async put(draft: Draft): Promise<void> {
    this.#drafts.set(`${draft.sessionId} ${draft.clientMsgId}`, draft);
  }

  async drop(sessionId: string, clientMsgIds: readonly string[]): Promise<void> {
    for (const clientMsgId of clientMsgIds) this.#drafts.delete(`${sessionId} ${clientMsgId}`);
  }
}

/** What `localStorage` is, and what a file or a phone's key-value store is easily made to be. */
export interface KeyValues {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
}

/** One key a session in the browser's `localStorage`, or in anything like it. One person's, and one tab's at a time. */
export class WebStorage implements Storage {
  constructor(
    private readonly values: KeyValues,
    private readonly prefix = "tarazu:outbox:",
  ) {}

  async load(sessionId: string): Promise<Draft[]> {
    return this.#read(sessionId);
  }

  async put(draft: Draft): Promise<void> {
    const others = this.#read(draft.sessionId).filter((other) => other.clientMsgId !== draft.clientMsgId);
    this.#write(draft.sessionId, [...others, draft]);
  }

  async drop(sessionId: string, clientMsgIds: readonly string[]): Promise<void> {
    const gone = new Set(clientMsgIds);
    this.#write(
      sessionId,
      this.#read(sessionId).filter((draft) => !gone.has(draft.clientMsgId)),
    );
  }

  #read(sessionId: string): Draft[] {
    return JSON.parse(this.values.getItem(this.prefix + sessionId) ?? "[]") as Draft[];
  }

  #write(sessionId: string, drafts: Draft[]): void {
    this.values.setItem(this.prefix + sessionId, JSON.stringify(drafts));
  }
}
