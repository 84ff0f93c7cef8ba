// One person's connection, and the conversations on it.

import { Backoff } from "./backoff.js";
import { ACK_MS, Chat, type ChatOptions } from "./chat.js";
import { Connection } from "./connection.js";
import { factsOf } from "./errors.js";
import { WINDOW } from "./outbox.js";
import { MemoryStorage, type Storage } from "./storage.js";
import type { ClientEvents, ServerEvents } from "./wire.js";

export interface ClientOptions {
  /** Of the server, as `https://host`; or a function that names one of several, called before every connection. */
  url: string | (() => string);
  /** Called before every connection for the access token of that moment. Throw `SignedOut` when there is none. */
  token(): Promise<string>;
  /** Whose login it is. */
  userId: string;
  /** Keeps what was said and not yet stored; by default for as long as the page or the process lives. */
  storage?: Storage;
  /** How many messages of a chat may be without an answer. */
  window?: number;
  backoff?: Backoff;
}

type Handler = (payload: never) => void;

/** Connects at once, and again whenever it has to, until it is closed. */
export class Client {
  /** Settled when it is closed. Rejects with `SignedOut`: the server will not have this login back. */
  readonly stopped: Promise<void>;
  #connection: Connection;
  #handlers = new Map<string, Set<Handler>>();
  #any = new Set<(event: string, payload: unknown) => void>();
  #chats = new Map<string, Chat>();

  constructor(private readonly options: ClientOptions) {
    const hooks = {
      token: () => options.token(),
      hears: (event: string, payload: unknown) => this.#hear(event, payload),
      wentUp: () => this.#chats.forEach((chat) => chat.wentUp()),
      wentDown: () => this.#chats.forEach((chat) => chat.wentDown()),
    };
    this.#connection = new Connection(options.url, hooks, options.backoff ?? new Backoff());
    this.stopped = this.#connection.run();
    this.stopped.catch(() => undefined);
  }

  get isConnected(): boolean {
    return this.#connection.isUp;
  }

  /** Say goodbye. What waits in the outboxes stays in the storage. */
  async close(): Promise<void> {
    this.#connection.close();
    await Promise.all([...this.#chats.values()].map((chat) => chat.close()));
    this.#chats.clear();
    await this.stopped.catch(() => undefined);
  }

  /** Send an event on the present connection. Rejects with `ConnectionLost`, `AckTimeout` or `Refused`. */
  async call<E extends keyof ClientEvents>(
    event: E,
    payload: ClientEvents[E]["payload"],
    timeoutMs = ACK_MS,
  ): Promise<ClientEvents[E]["ack"]> {
    return (await this.#connection.ask(event, payload, timeoutMs)) as ClientEvents[E]["ack"];
  }

  /** Hear every such event, of any session; what is returned ends it. */
  on<E extends keyof ServerEvents>(event: E, handler: (payload: ServerEvents[E]) => void): () => void {
    const handlers = this.#handlers.get(event) ?? new Set();
    this.#handlers.set(event, handlers.add(handler as Handler));
    return () => void handlers.delete(handler as Handler);
  }

  /** Hear everything, also what this version has no name for. */
  onAny(handler: (event: string, payload: unknown) => void): () => void {
    this.#any.add(handler);
    return () => void this.#any.delete(handler);
  }

  /** Take part in a session's conversation from now on, with what an earlier run has left in the outbox. */
  async open(sessionId: string, options: ChatOptions): Promise<Chat> {
    if (this.#chats.has(sessionId)) throw new RangeError(`session ${sessionId} is open already`);
    const { userId, storage, window } = this.options;
    const chat = new Chat(this.#connection, sessionId, userId, storage ?? this.#memory, options, window ?? WINDOW);
    this.#chats.set(sessionId, chat);
    await chat.start();
    return chat;
  }

  #memory = new MemoryStorage();

  /** Hear nothing more of it. What waits in its outbox stays in the storage. */
  async leave(chat: Chat): Promise<void> {
    this.#chats.delete(chat.sessionId);
    await chat.close();
    await this.#connection.ask("leave_session", { sessionId: chat.sessionId }, ACK_MS).catch(() => undefined);
  }

  #hear(event: string, payload: unknown): void {
    const facts = factsOf(payload);
    safely(event, () => this.#chats.get(String(facts["sessionId"]))?.hear(event, facts));
    for (const handler of this.#handlers.get(event) ?? []) safely(event, () => handler(payload as never));
    for (const handler of this.#any) safely(event, () => handler(event, payload));
  }
}

/** Neither an app's mistake nor an event from a later server may end the connection. */
function safely(event: string, work: () => void): void {
  try {
    work();
  } catch (error) {
    console.error(`a handler of ${event} failed`, error);
  }
}
