// One socket at a time, and another one whenever it is lost.

import { io, type Socket } from "socket.io-client";
import type { Backoff } from "./backoff.js";
import { AckTimeout, ConnectionLost, factsOf, Refused, retryAfterMs, SignedOut } from "./errors.js";
import { Signal } from "./signal.js";

/** From here on a `server:bye` means: do not come back. */
const TERMINAL = 3_500;
/** To open a connection. */
const OPEN_MS = 10_000;

export interface Hooks {
  /** Asked before every attempt for the access token of that moment. Throws `SignedOut` if there is none any more. */
  token(): Promise<string>;
  /** Every event, in the order of arrival. */
  hears(event: string, payload: unknown): void;
  wentUp(): void;
  wentDown(): void;
}

interface Asked {
  resolve(ack: unknown): void;
  reject(error: Error): void;
}

/** Connects, says what comes, and connects again. WebSocket only. */
export class Connection {
  #socket: Socket | null = null;
  #asked = new Set<Asked>();
  #bye: Record<string, unknown> | null = null;
  #refusedInARow = 0;
  #isClosing = false;
  #leave = new Signal();

  constructor(
    private readonly url: string | (() => string),
    private readonly hooks: Hooks,
    private readonly backoff: Backoff,
  ) {}

  get isUp(): boolean {
    return this.#socket !== null;
  }

  /** The server has said that it is about to close this connection. */
  get isLeaving(): boolean {
    return this.#bye !== null;
  }

  /** `run` returns soon. */
  close(): void {
    this.#isClosing = true;
    this.#leave.set();
    this.#socket?.disconnect();
  }

  /** Until it is closed. Rejects with `SignedOut`. */
  async run(): Promise<void> {
    while (!this.#isClosing) {
      const waitMs = await this.#oneLife();
      if (!this.#isClosing) await this.#leave.wait(waitMs);
    }
  }

  /** Send now, after what was sent before; the acknowledgement. Rejects with `ConnectionLost`, `AckTimeout` or `Refused`. */
  ask(event: string, payload: object, timeoutMs: number): Promise<unknown> {
    const socket = this.#socket;
    return new Promise((resolve, reject) => {
      if (socket === null || !socket.connected) {
        reject(new ConnectionLost(`${event}: there is no connection`));
        return;
      }
      const timer = setTimeout(() => settle(() => reject(new AckTimeout(event))), timeoutMs);
      const settle = (how: () => void): void => {
        clearTimeout(timer);
        this.#asked.delete(asked);
        how();
      };
      const asked: Asked = {
        resolve: (ack) => settle(() => resolve(ack)),
        reject: (error) => settle(() => reject(error)),
      };
      this.#asked.add(asked);
      socket.emit(event, payload, (ack: unknown) => this.#takeAck(asked, ack));
    });
  }

  #takeAck(asked: Asked, ack: unknown): void {
    const facts = factsOf(ack);
    if (facts["ok"] === true) {
      this.backoff.reset();
      asked.resolve(ack);
    } else if (facts["ok"] === false) asked.reject(new Refused(facts["error"]));
    else asked.reject(new ConnectionLost("an acknowledgement that says nothing"));
  }

  /** From the attempt to the loss; how long to wait before the next. Rejects with `SignedOut`. */
  async #oneLife(): Promise<number> {
    this.#bye = null;
    let token: string;
    try {
      token = await this.hooks.token();
    } catch (error) {
      if (error instanceof SignedOut) throw error;
      return this.backoff.nextMs();
    }
    if (this.#isClosing) return 0;
    const socket = io(typeof this.url === "string" ? this.url : this.url(), {
      transports: ["websocket"],
      reconnection: false,
      forceNew: true,
      autoConnect: false,
      timeout: OPEN_MS,
      auth: { token },
    });
    let timer: ReturnType<typeof setTimeout> | undefined;
    const refusal = await new Promise<Record<string, unknown> | null>((resolve) => {
      socket.once("connect", () => resolve(null));
      socket.once("connect_error", (error) => resolve(factsOf((error as { data?: unknown }).data)));
      // A line that breaks between the open transport and the server's answer is no error to the library, nor is silence.
      socket.once("disconnect", () => resolve({}));
      timer = setTimeout(() => resolve({}), 2 * OPEN_MS);
      socket.connect();
    });
    clearTimeout(timer);
    socket.off("disconnect");
    if (refusal !== null || !socket.connected || this.#isClosing) {
      socket.disconnect();
      return this.#afterRefusal(refusal ?? {});
    }
    this.#refusedInARow = 0;
    this.#socket = socket;
    await new Promise<void>((resolve) => {
      socket.once("disconnect", () => resolve());
      socket.onAny((event: string, payload: unknown) => this.#take(event, payload));
      this.hooks.wentUp();
      // It may be gone by now.
      if (!socket.connected) resolve();
    });
    this.#socket = null;
    this.hooks.wentDown();
    for (const asked of [...this.#asked]) asked.reject(new ConnectionLost("the connection is lost"));
    socket.offAny();
    socket.disconnect();
    return this.#afterBye();
  }

  #take(event: string, payload: unknown): void {
    if (event === "server:bye") {
      this.#bye = factsOf(payload);
      if (isFinal(this.#bye)) queueMicrotask(() => this.#socket?.disconnect());
    }
    this.hooks.hears(event, payload);
  }

  #afterBye(): number {
    const bye = this.#bye;
    if (bye === null) return this.backoff.nextMs();
    if (isFinal(bye)) throw new SignedOut(typeof bye["code"] === "number" ? bye["code"] : TERMINAL, String(bye["reason"] ?? ""));
    return this.backoff.afterMs(retryAfterMs(bye));
  }

  /** Refused for good is believed the second time: the token may have run out on its way. */
  #afterRefusal(problem: Record<string, unknown>): number {
    if (problem["retryable"] === false) {
      this.#refusedInARow += 1;
      if (this.#refusedInARow > 1) throw new SignedOut(String(problem["code"]), String(problem["message"] ?? ""));
    }
    return this.backoff.afterMs(retryAfterMs(problem));
  }
}

function isFinal(bye: Record<string, unknown>): boolean {
  const code = bye["code"];
  return typeof code === "number" ? code >= TERMINAL : bye["reconnect"] === false;
}
