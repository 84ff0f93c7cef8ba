// The types of the wire. Made by `python -m clients.generate` from the server's AsyncAPI document. Do not edit.

export interface Ack {
  ok: true;
}

/**
 * The bill at one instant, as billing tells it. `walletBalance` is null for the lawyer,
 * `remainingSeconds` is null for the lawyer above 120. A `lastSeq` above the last message that you have:
 * join again with `afterSeq`. It is null in an event while the store does not answer; the next tick has
 * it.
 */
export interface BillView {
  sessionId: string;
  elapsedSeconds: number;
  totalAmount: string;
  walletBalance: string | null;
  currency: string;
  ratePerMinute: string;
  remainingSeconds: number | null;
  paidUntil: string | null;
  status: "ACTIVE" | "PAUSED" | "ENDED" | "FORCE_ENDED";
  reason: "USER_ENDED" | "LAWYER_ENDED" | "ADMIN_ENDED" | "WALLET_EMPTY" | "MAX_AMOUNT" | "PEER_GONE" | "ABANDONED" | "ACCOUNT_DISABLED" | null;
  lastSeq: number | null;
}

/** Said before the server closes a connection. Codes below 3500: connect again. */
export interface ByeView {
  code: number;
  reason: string;
  reconnect: boolean;
}

export interface CompanyLowBalanceView {
  companyId: string;
  eventId: string;
  at: string;
  currency?: string | null;
  walletBalance?: string | null;
  threshold?: string | null;
  usageId?: string | null;
  [more: string]: unknown;
}

export interface CompanyOwedView {
  companyId: string;
  eventId: string;
  at: string;
  currency?: string | null;
  walletBalance?: string | null;
  owed?: string | null;
  usageId?: string | null;
  [more: string]: unknown;
}

export interface CompanyRechargeFailedView {
  companyId: string;
  eventId: string;
  at: string;
  currency?: string | null;
  walletBalance?: string | null;
  amount?: string | null;
  invoiceId?: string | null;
  reason?: string | null;
  [more: string]: unknown;
}

export interface CompanyRechargedView {
  companyId: string;
  eventId: string;
  at: string;
  currency?: string | null;
  walletBalance?: string | null;
  amount?: string | null;
  invoiceId?: string | null;
  automatic?: boolean | null;
  [more: string]: unknown;
}

/** Balance or usage is another than before. */
export interface CompanyUpdatedView {
  companyId: string;
}

export interface DeliveredAck {
  ok: true;
  deliveredSeq: number;
  seenSeq: number;
}

/** The acknowledgement of an event that was not carried out. */
export interface Failure {
  ok: false;
  error: Problem;
}

export interface FieldProblem {
  field: string;
  message: string;
}

/** What there is to catch up with. `stored` says which of the `pendingIds` are safe, by `clientMsgId`. */
export interface JoinAck {
  ok: true;
  sessionId: string;
  lastSeq: number;
  messages: MessageView[];
  hasMore: boolean;
  watermarks: Record<string, MarksView>;
  presence: Record<string, "ONLINE" | "OFFLINE">;
  billing: BillView;
  stored: Record<string, StoredView>;
}

/**
 * `afterSeq` is the last message that the client has; `pendingIds` are its own messages that were never
 * acknowledged.
 */
export interface JoinSession {
  sessionId: string;
  afterSeq?: number;
  pendingIds?: string[];
}

export interface LeaveSession {
  sessionId: string;
}

/** The bill when the money lasts for less than `thresholdSeconds`. */
export interface LowBalanceView {
  sessionId: string;
  elapsedSeconds: number;
  totalAmount: string;
  walletBalance: string | null;
  currency: string;
  ratePerMinute: string;
  remainingSeconds: number | null;
  paidUntil: string | null;
  status: "ACTIVE" | "PAUSED" | "ENDED" | "FORCE_ENDED";
  reason: "USER_ENDED" | "LAWYER_ENDED" | "ADMIN_ENDED" | "WALLET_EMPTY" | "MAX_AMOUNT" | "PEER_GONE" | "ABANDONED" | "ACCOUNT_DISABLED" | null;
  lastSeq: number | null;
  thresholdSeconds: number;
}

/** Without `uptoSeq`: everything there is. */
export interface MarkSeen {
  sessionId: string;
  uptoSeq?: number | null;
}

export interface MarksView {
  deliveredSeq: number;
  seenSeq: number;
}

/** Either the message, or everything up to a `seq`. */
export interface MessageDelivered {
  sessionId: string;
  messageId?: string | null;
  uptoSeq?: number | null;
}

/**
 * A stored message. `seq` counts from 1 without a gap in its session. With `erasedAt`, retention took the
 * body: it is empty.
 */
export interface MessageView {
  id: string;
  sessionId: string;
  seq: number;
  senderId: string;
  clientMsgId: string;
  body: string;
  status: "SENT" | "DELIVERED" | "SEEN";
  createdAt: string;
  deliveredAt: string | null;
  seenAt: string | null;
  erasedAt: string | null;
}

export interface PresenceView {
  sessionId: string;
  userId: string;
  state: "ONLINE" | "OFFLINE";
}

export interface Problem {
  code: string;
  message: string;
  retryable: boolean;
  fields?: FieldProblem[] | null;
  errorId?: string | null;
}

export interface SeenAck {
  ok: true;
  deliveredSeq: number;
  seenSeq: number;
  updated: number;
}

/** The message is durable. `duplicate`: it was already, under the same `clientMsgId`. */
export interface SendAck {
  ok: true;
  id: string;
  seq: number;
  status: "SENT";
  createdAt: string;
  clientMsgId: string;
  duplicate: boolean;
}

/** `clientMsgId` is the client's own name for the message; with it, sending again is safe. */
export interface SendMessage {
  sessionId: string;
  body: string;
  clientMsgId?: string | null;
}

/** How far `userId` has received and read. */
export interface StatusView {
  sessionId: string;
  userId: string;
  deliveredSeq: number;
  seenSeq: number;
}

export interface StoredView {
  id: string;
  seq: number;
  createdAt: string;
}

export interface Typing {
  sessionId: string;
  isTyping: boolean;
}

export interface TypingView {
  sessionId: string;
  userId: string;
  isTyping: boolean;
}

/** What an event may be refused with. A later server may have more. */
export type ErrorCode = "DRAINING" | "IDEMPOTENCY_MISMATCH" | "INTERNAL" | "NOT_FOUND" | "NOT_JOINED" | "RATE_LIMITED" | "SESSION_NOT_ACTIVE" | "STORAGE_BUSY" | "STORAGE_UNAVAILABLE" | "VALIDATION_FAILED";

/** The events that a client sends, and how each is acknowledged. */
export interface ClientEvents {
  /**
   * Enter the session's room and catch up: messages after `afterSeq`, watermarks, billing, which
   * `pendingIds` are stored. `hasMore`: ask again after the last seq of the answer.
   */
  "join_session": { payload: JoinSession; ack: JoinAck };
  /**
   * Store a message. Acknowledged once it is durable; the same `clientMsgId` again gets the same answer
   * and stores nothing.
   */
  "send_message": { payload: SendMessage; ack: SendAck };
  /** Everything up to this message has arrived on this person's device. */
  "message_delivered": { payload: MessageDelivered; ack: DeliveredAck };
  /** Everything up to `uptoSeq` (default: all) was read. Implies delivered. */
  "mark_seen": { payload: MarkSeen; ack: SeenAck };
  /** Tell the room; never stored, may be dropped. */
  "typing": { payload: Typing; ack: Ack };
  /** Leave the room with this socket. Does not end the session. */
  "leave_session": { payload: LeaveSession; ack: Ack };
}

/** The events that the server sends. */
export interface ServerEvents {
  /** A message was stored. */
  "new_message": MessageView;
  /** A participant's watermarks moved; one event for a bulk change. */
  "message_status": StatusView;
  /** The other side types, or stopped to. */
  "typing": TypingView;
  /** A participant opened the session on a first device, or has been gone from the last one for a moment. */
  "presence": PresenceView;
  /** The session is ACTIVE and billed from now. */
  "session:started": BillView;
  /** The running bill, with the chat's `lastSeq`. */
  "session:tick": BillView;
  /** The money lasts for less than the threshold. */
  "session:low_balance": LowBalanceView;
  /** The money lasts longer than before. */
  "session:recharged": BillView;
  /** The final bill. */
  "session:ended": BillView;
  /** The company's balance has fallen below a threshold of its own. */
  "billing:low_balance": CompanyLowBalanceView;
  /** The company's wallet could not pay for a usage: it is owed, and collected by the next recharge. */
  "billing:owed": CompanyOwedView;
  /** The company's wallet was recharged. */
  "billing:recharged": CompanyRechargedView;
  /** A recharge failed; nothing was credited. */
  "billing:recharge_failed": CompanyRechargeFailedView;
  /** Auto-recharge was stopped after declined payments; somebody has to switch it on again. */
  "billing:auto_recharge_stopped": CompanyRechargeFailedView;
  /**
   * Balance or usage is another than before: look again. At most once a second, and the last change is
   * always told.
   */
  "billing:updated": CompanyUpdatedView;
  /** The server is about to close this connection. */
  "server:bye": ByeView;
}
