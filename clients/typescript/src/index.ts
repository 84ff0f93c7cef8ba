// A client for Tarazu: conversations that survive lost connections, with every event typed.

export { Backoff } from "./backoff.js";
export { Chat, type ChatOptions, type Sent } from "./chat.js";
export { Client, type ClientOptions } from "./client.js";
export { AckTimeout, ClientError, ConnectionLost, Refused, SignedOut } from "./errors.js";
export type { Mark, State } from "./marks.js";
export type { Draft } from "./outbox.js";
export { type KeyValues, MemoryStorage, type Storage, WebStorage } from "./storage.js";
export type * from "./wire.js";
