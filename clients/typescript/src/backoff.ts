// How long to wait before the next attempt: doubling, and drawn anew by each client, so that a crowd does not come back at once.

export const FIRST_MS = 500;
export const CAP_MS = 15_000;

/** Full jitter: anything from nothing to the present limit, which doubles up to a cap. `draw` gives numbers in [0, 1). */
export class Backoff {
  #limitMs: number;

  constructor(
    private readonly firstMs = FIRST_MS,
    private readonly capMs = CAP_MS,
    private readonly draw: () => number = Math.random,
  ) {
    this.#limitMs = firstMs;
  }

  nextMs(): number {
    const limitMs = this.#limitMs;
    this.#limitMs = Math.min(2 * limitMs, this.capMs);
    return this.draw() * limitMs;
  }

  /** What the server asked for and up to as much again; without a word of it, our own next one. */
  afterMs(retryAfterMs: number | null): number {
    return retryAfterMs === null ? this.nextMs() : retryAfterMs * (1 + this.draw());
  }

  /** It worked. */
  reset(): void {
    this.#limitMs = this.firstMs;
  }
}
