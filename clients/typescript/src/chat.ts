// One session's conversation on one device, through lost connections.

import { Backoff } from "./backoff.js";
import { AckTimeout, ConnectionLost, factsOf, Refused } from "./errors.js";
import { type Mark, Marks, type State } from "./marks.js";
import { type Draft, Outbox } from "./outbox.js";
import { Receipts } from "./receipts.js";
import { Sequence } from "./sequence.js";
import { Signal } from "./signal.js";
import type { Storage } from "./storage.js";
import type { BillView, ClientEvents, MessageView } from "./wire.js";

/** An acknowledgement that takes longer is not waited for; the event is sent again. */
export const ACK_MS = 5_000;
/** Of one join; the server takes no more. */
const PENDING_IDS = 50;
/** What is missing may be on its way: two processes tell in no common order. After this it is asked for. */
const GRACE_MS = 500;
/** Receipts of this long are one event. */
const COALESCE_MS = 300;
/** The same news of typing is told once in so long. */
const TYPING_MS = 2_000;
const OVER: ReadonlySet<string> = new Set(["ENDED", "FORCE_ENDED"]);

/** What a chat needs of the connection. */
export interface Wire {
  readonly isUp: boolean;
  readonly isLeaving: boolean;
  ask(event: string, payload: object, timeoutMs: number): Promise<unknown>;
}

export interface ChatOptions {
  /** Is given every message after `afterSeq` exactly once and in order, one's own as well. */
  onMessage(message: MessageView): void;
  /** The last message that the app has already; from an app's own store after a restart. */
  afterSeq?: number;
  /** How far somebody has received and read, when it changes. */
  onMarks?(userId: string, mark: Mark): void;
  /** A message will never be stored: the session is over, or its text is not allowed. */
  onFailed?(draft: Draft, error: Refused): void;
}

/** A message that was said. `stored` tells its position once it is stored for good, and rejects with `Refused` if it never will be. */
export interface Sent {
  readonly clientMsgId: string;
  readonly body: string;
  readonly stored: Promise<number>;
}

interface Settle {
  sent: Sent;
  stored(seq: number): void;
  failed(error: Refused): void;
}

/**
 * Messages go to `onMessage` exactly once and in the order of their `seq`; what is said is stored exactly once. `bill` is the last
 * that was told of the session's bill. Made by `Client.open`.
 */
export class Chat {
  bill: BillView | null = null;
  /** Once everything that was missed is here. Rejects with `Refused`: the server does not let this person in. */
  readonly joined: Promise<void>;
  #letIn!: (error: Refused | null) => void;
  #sequence: Sequence;
  #outbox: Outbox;
  #marks = new Marks();
  #receipts = new Receipts();
  #sent = new Map<string, Settle>();
  #backoff = new Backoff();
  #saying: Promise<unknown> = Promise.resolve();
  #isJoined = false;
  #isRefused = false;
  #isClosed = false;
  /** Another one with every connection: an answer of the last one says nothing about this one. */
  #life = 0;
  #stale = new Signal();
  #more = new Signal();
  #toTell = new Signal();
  #behind: ReturnType<typeof setTimeout> | undefined;
  #behindSeq = 0;
  #forgettable: string[] = [];
  #forgetting: Promise<void> | null = null;
  #empty: (() => void)[] = [];
  #typed = { isTyping: false, atMs: -Infinity };

  constructor(
    private readonly wire: Wire,
    readonly sessionId: string,
    private readonly userId: string,
    private readonly storage: Storage,
    private readonly options: ChatOptions,
    window: number,
  ) {
    this.#sequence = new Sequence(options.afterSeq ?? 0);
    this.#outbox = new Outbox(window);
    this.joined = new Promise((resolve, reject) => {
      this.#letIn = (error) => (error === null ? resolve() : reject(error));
    });
    // The app need not ask.
    this.joined.catch(() => undefined);
  }

  // -- what the app does ----------------------------------------------------------------------------------------

  /** The last message that the app was given. */
  get lastSeq(): number {
    return this.#sequence.lastSeq;
  }

  /** What is not known to be stored, in the order in which it was said. */
  get drafts(): Draft[] {
    return this.#outbox.all();
  }

  get waiting(): number {
    return this.#outbox.size;
  }

  /** Say it: returns once it is in the outbox, with or without a connection. */
  async send(body: string, clientMsgId: string = crypto.randomUUID()): Promise<Sent> {
    // In the order of asking, whatever the storage does.
    const said = this.#saying.then(async () => {
      if (this.#outbox.has(clientMsgId)) throw new RangeError(`clientMsgId ${clientMsgId} is waiting already`);
      const draft = { sessionId: this.sessionId, clientMsgId, body };
      await this.storage.put(draft);
      return this.#add(draft);
    });
    this.#saying = said.catch(() => undefined);
    const sent = await said;
    this.#more.set();
    return sent;
  }

  /** Return once nothing waits in the outbox. */
  async flushed(): Promise<void> {
    while (this.#outbox.size > 0) await new Promise<void>((resolve) => this.#empty.push(resolve));
  }

  /** The person has read everything up to it (default: all that the app was given). */
  seen(uptoSeq: number = this.lastSeq): void {
    this.#receipts.seen(uptoSeq);
    this.#toTell.set();
  }

  /** Tell the other side, if there is a connection. Call it at every key; it is told now and then. */
  typing(isTyping = true): void {
    const nowMs = Date.now();
    if (!this.#isJoined || (isTyping === this.#typed.isTyping && nowMs - this.#typed.atMs < TYPING_MS)) return;
    this.#typed = { isTyping, atMs: nowMs };
    this.#ask("typing", { isTyping }).catch(() => undefined);
  }

  /** Of a message, as of now. */
  state(message: MessageView): State {
    return this.#marks.state(message.seq, message.senderId);
  }

  /** How far a person has received and read. */
  mark(userId: string): Mark {
    return this.#marks.of(userId);
  }

  // -- what the client does -------------------------------------------------------------------------------------

  /** Load the outbox and go to work. */
  async start(): Promise<void> {
    for (const draft of await this.storage.load(this.sessionId)) this.#add(draft);
    void this.#keepUp();
    void this.#post();
    void this.#report();
    this.#stale.set();
  }

  /** Stop; what waits in the outbox stays in the storage. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#behind);
    for (const signal of [this.#stale, this.#more, this.#toTell]) signal.set();
    await this.#saying;
    await this.#forgetting;
  }

  wentUp(): void {
    this.#life += 1;
    this.#stale.set();
  }

  wentDown(): void {
    this.#life += 1;
    this.#isJoined = false;
    this.#outbox.lost();
  }

  /** An event that names this session. */
  hear(event: string, payload: Record<string, unknown>): void {
    if (event === "new_message") this.#take(payload as unknown as MessageView);
    else if (event === "message_status") this.#takeMarks(String(payload["userId"]), payload as unknown as Mark);
    else if (event.startsWith("session:") && "totalAmount" in payload) this.#takeBill(payload as unknown as BillView);
  }

  // -- catching up ----------------------------------------------------------------------------------------------

  /** Join when there is a connection, and again whenever something is missing. */
  async #keepUp(): Promise<void> {
    while (!this.#isClosed) {
      await this.#stale.wait();
      if (this.#isClosed || !this.wire.isUp) continue; // the next connection asks again
      try {
        await this.#catchUp();
      } catch (error) {
        if (error instanceof ConnectionLost) continue;
        if (error instanceof Refused && !error.retryable) {
          this.#isRefused = true;
          this.#letIn(error);
          return;
        }
        const refusedForMs = error instanceof Refused ? error.retryAfterMs : null;
        if (!(error instanceof AckTimeout)) await sleep(this.#backoff.afterMs(refusedForMs));
        this.#stale.set();
      }
    }
  }

  async #catchUp(): Promise<void> {
    const life = this.#life;
    for (let hasMore = true; hasMore; ) {
      const before = this.lastSeq;
      const pendingIds = this.#isJoined ? [] : this.#outbox.firstIds(PENDING_IDS);
      const ack = await this.#ask("join_session", { afterSeq: before, pendingIds });
      for (const message of ack.messages) this.#take(message);
      for (const [clientMsgId, { seq }] of Object.entries(ack.stored)) this.#stored(clientMsgId, seq);
      for (const [userId, told] of Object.entries(ack.watermarks)) this.#takeMarks(userId, told);
      this.#takeBill(ack.billing);
      // More is promised and nothing came: the rest will be asked for when it is missed.
      hasMore = ack.hasMore && this.lastSeq > before;
    }
    if (life !== this.#life) return; // the connection was lost while we read; the next one joins
    this.#isJoined = true;
    this.#letIn(null);
    this.#more.set();
    this.#toTell.set();
  }

  /** There is a message `seq`; unless it comes by itself it will be asked for. */
  #miss(seq: number): void {
    this.#behindSeq = Math.max(this.#behindSeq, seq);
    if (this.#behind !== undefined || seq <= this.lastSeq || this.#isClosed) return;
    this.#behind = setTimeout(() => {
      this.#behind = undefined;
      if (this.lastSeq < this.#behindSeq) this.#stale.set();
    }, GRACE_MS);
  }

  // -- what comes -----------------------------------------------------------------------------------------------

  #take(message: MessageView): void {
    for (const ready of this.#sequence.take(message)) {
      if (ready.senderId === this.userId) {
        // It came back: it is stored, whether or not the acknowledgement comes.
        this.#stored(ready.clientMsgId, ready.seq);
      } else {
        this.#receipts.arrived(ready.seq);
        this.#toTell.set();
      }
      give(() => this.options.onMessage(ready));
    }
    if (this.#sequence.isWaiting) this.#miss(message.seq);
  }

  #takeMarks(userId: string, told: Mark): void {
    if (this.#marks.take(userId, told)) give(() => this.options.onMarks?.(userId, this.#marks.of(userId)));
  }

  #takeBill(bill: BillView): void {
    if (this.bill !== null && OVER.has(this.bill.status) && !OVER.has(bill.status)) return; // a late word; what is over stays over
    this.bill = bill;
    if (typeof bill.lastSeq === "number" && bill.lastSeq > this.lastSeq) this.#miss(bill.lastSeq);
    if (bill.status === "ACTIVE" && this.#outbox.waitMs(Date.now()) !== null) {
      // It may have been refused because the session was not served just then.
      this.#outbox.now();
      this.#more.set();
    }
  }

  // -- the outbox -----------------------------------------------------------------------------------------------

  #add(draft: Draft): Sent {
    this.#outbox.add(draft);
    let stored!: (seq: number) => void;
    let failed!: (error: Refused) => void;
    const promise = new Promise<number>((resolve, reject) => ([stored, failed] = [resolve, reject]));
    promise.catch(() => undefined);
    const sent: Sent = { clientMsgId: draft.clientMsgId, body: draft.body, stored: promise };
    this.#sent.set(draft.clientMsgId, { sent, stored, failed });
    return sent;
  }

  async #post(): Promise<void> {
    while (!this.#isClosed) {
      await this.#more.wait(this.#outbox.waitMs(Date.now()) ?? undefined);
      while (this.#isJoined && this.wire.isUp && !this.wire.isLeaving && !this.#isClosed) {
        const draft = this.#outbox.next(Date.now());
        if (draft === null) break;
        const { clientMsgId, body } = draft;
        this.#ask("send_message", { clientMsgId, body }).then(
          ({ seq }) => {
            this.#backoff.reset();
            this.#stored(clientMsgId, seq);
          },
          (error: unknown) => this.#notStored(draft, error),
        );
      }
    }
  }

  #notStored(draft: Draft, error: unknown): void {
    if (error instanceof Refused) this.#wasRefused(draft, error);
    // A lost connection: the next one asks about it.
    else if (!(error instanceof ConnectionLost)) this.#outbox.again(draft.clientMsgId);
    this.#more.set();
  }

  #wasRefused(draft: Draft, error: Refused): void {
    const over = this.bill !== null && OVER.has(this.bill.status);
    if (error.retryable || (error.code === "SESSION_NOT_ACTIVE" && !over)) {
      this.#outbox.again(draft.clientMsgId, Date.now() + this.#backoff.afterMs(error.retryAfterMs));
      // Is it over, or not served for the moment? The next join says so.
      if (!error.retryable) this.#stale.set();
    } else if (this.#outbox.failed(draft.clientMsgId)) {
      this.#settle(draft.clientMsgId)?.failed(error);
      give(() => this.options.onFailed?.(draft, error));
    }
  }

  #stored(clientMsgId: string, seq: number): void {
    if (!this.#outbox.stored(clientMsgId)) return;
    this.#settle(clientMsgId)?.stored(seq);
    this.#more.set();
  }

  #settle(clientMsgId: string): Settle | undefined {
    const settle = this.#sent.get(clientMsgId);
    this.#sent.delete(clientMsgId);
    this.#forgettable.push(clientMsgId);
    this.#forgetting ??= this.#forget();
    if (this.#outbox.size === 0) for (const wake of this.#empty.splice(0)) wake();
    return settle;
  }

  /** Out of the storage, as many at once as there are. */
  async #forget(): Promise<void> {
    await Promise.resolve();
    while (this.#forgettable.length > 0) {
      // One after another with `send`: a storage may read and write all of a session.
      const done = this.#forgettable.splice(0);
      const dropped = this.#saying.then(() => this.storage.drop(this.sessionId, done));
      this.#saying = dropped.catch(() => undefined);
      await this.#saying;
    }
    this.#forgetting = null;
  }

  // -- receipts -------------------------------------------------------------------------------------------------

  async #report(): Promise<void> {
    while (!this.#isClosed) {
      await this.#toTell.wait();
      await sleep(COALESCE_MS);
      for (let report; !this.#isClosed && this.#isJoined && (report = this.#receipts.due(this.#marks.of(this.userId))); ) {
        const before = this.#marks.of(this.userId);
        try {
          this.#takeMarks(this.userId, await this.#ask(report.event, { uptoSeq: report.uptoSeq }));
        } catch (error) {
          if (error instanceof AckTimeout || (error instanceof Refused && error.retryable)) this.#toTell.set();
          break;
        }
        const after = this.#marks.of(this.userId);
        // It does not know the message yet; the next one says it again.
        if (after.deliveredSeq === before.deliveredSeq && after.seenSeq === before.seenSeq) break;
      }
    }
  }

  // -- small ones -----------------------------------------------------------------------------------------------

  async #ask<E extends keyof ClientEvents>(
    event: E,
    payload: Omit<ClientEvents[E]["payload"], "sessionId">,
  ): Promise<ClientEvents[E]["ack"]> {
    const ack = await this.wire.ask(event, { sessionId: this.sessionId, ...payload }, ACK_MS);
    return factsOf(ack) as unknown as ClientEvents[E]["ack"];
  }

  /** Whether the server does not let this person in. */
  get isRefused(): boolean {
    return this.#isRefused;
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** The app's trouble is not the chat's. */
function give(callback: () => void): void {
  try {
    callback();
  } catch (error) {
    console.error("the app's handler failed", error);
  }
}
