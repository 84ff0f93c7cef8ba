// What can go wrong at a client.

export class ClientError extends Error {
  override name = "ClientError";
}

/** There is no connection, or it broke before the acknowledgement: it may have been done or not. */
export class ConnectionLost extends ClientError {
  override name = "ConnectionLost";
}

/** No acknowledgement in time: it may have been done or not. */
export class AckTimeout extends ClientError {
  override name = "AckTimeout";
}

/** The server said no. `code` is for programs, `text` for people. */
export class Refused extends ClientError {
  override name = "Refused";
  readonly code: string;
  readonly text: string;
  readonly retryable: boolean;
  readonly retryAfterMs: number | null;
  readonly fields: readonly { field: string; message: string }[];

  constructor(problem: unknown) {
    const facts = factsOf(problem);
    const code = String(facts["code"] ?? "INTERNAL");
    const text = String(facts["message"] ?? "");
    super(`${code}: ${text}`);
    this.code = code;
    this.text = text;
    this.retryable = facts["retryable"] === true;
    this.retryAfterMs = retryAfterMs(facts);
    this.fields = Array.isArray(facts["fields"]) ? facts["fields"] : [];
  }
}

/**
 * The server will not have this login back: the person must log in again, or may not. `code` is that of `server:bye`, or of the
 * refused connection.
 */
export class SignedOut extends ClientError {
  override name = "SignedOut";

  constructor(
    readonly code: number | string,
    readonly reason: string,
  ) {
    super(`${code}: ${reason}`);
  }
}

/** When the server wants to be asked again, if it says so; an older one does not. */
export function retryAfterMs(facts: Record<string, unknown>): number | null {
  const value = facts["retryAfterMs"];
  return typeof value === "number" && value >= 0 ? value : null;
}

/** Whatever came, as an object. */
export function factsOf(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}
