// The types of the wire. Made by `python -m clients.generate` from the server's AsyncAPI document. Do not edit.

export interface Accept {
  sessionId: string;
  callId: string;
  partyId: string;
}

export interface Ack {
  ok: true;
}

/** Until when the token is good. The connection outlives that too; it ends with its log-in. */
export interface AuthAck {
  ok: true;
  expiresAt: string;
}

/** A fresh access token of the same person. */
export interface AuthRefresh {
  token: string;
}

/** The lawyer was taken offline: too many requests were not answered in a row. */
export interface AwayView {
  lawyerId: string;
  reason: "MISSED_RINGS";
}

/**
 * The bill at one instant, as billing tells it. `walletBalance` is null for the lawyer,
 * `remainingSeconds` is null for the lawyer above 120. While `status` is PAUSED, `reason` says who is
 * lost. A `lastSeq` above the last message that you have: join again with `afterSeq`. It is null in an
 * event while the store does not answer; the next tick has it.
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
  status: "REQUESTED" | "ACTIVE" | "PAUSED" | "ENDED" | "FORCE_ENDED" | "DECLINED" | "MISSED" | "CANCELLED";
  reason: "USER_ENDED" | "LAWYER_ENDED" | "ADMIN_ENDED" | "WALLET_EMPTY" | "MAX_AMOUNT" | "PEER_GONE" | "ABANDONED" | "ACCOUNT_DISABLED" | "LAWYER_DECLINED" | "NO_ANSWER" | "LAWYER_NOT_JOINED" | "USER_CANCELLED" | "USER_NOT_JOINED" | "INSUFFICIENT_BALANCE" | "USER_LOST" | "LAWYER_LOST" | null;
  lastSeq: number | null;
}

/** Said before the server closes a connection. Codes below 3500: connect again, after `retryAfterMs`. */
export interface ByeView {
  code: number;
  reason: string;
  reconnect: boolean;
  retryAfterMs?: number | null;
}

export interface CallAck {
  ok: true;
  call: CallView;
}

/** The call is over, for this device: close its peer connection. May come twice. */
export interface CallEndedView {
  sessionId: string;
  callId: string;
  reason: "REJECTED" | "CANCELLED" | "MISSED" | "HUNG_UP" | "SESSION_ENDED" | "ANSWERED_ELSEWHERE";
  at: string;
}

export interface CallPayload {
  sessionId: string;
  callId: string;
}

/**
 * A call. The caller makes the offers, the callee is the polite one. `lifetimeMs`: for how long it still
 * rings, whatever the client's clock says; null when it does not. `glare`: both had called, and are
 * connected without anybody's answer.
 */
export interface CallView {
  sessionId: string;
  callId: string;
  state: "RINGING" | "CONNECTED" | "ENDED";
  media: "audio" | "video";
  callerId: string;
  callerPartyId: string;
  calleeId: string;
  calleePartyId: string | null;
  glare: boolean;
  invitedAt: string;
  expiresAt: string;
  answeredAt: string | null;
  lifetimeMs: number | null;
}

/** An `RTCIceCandidateInit`. `candidate: ""` ends the list. */
export interface Candidate {
  candidate: string;
  sdpMid?: string | null;
  sdpMLineIndex?: number | null;
  usernameFragment?: string | null;
}

export interface CandidateView {
  candidate: string;
  sdpMid: string | null;
  sdpMLineIndex: number | null;
  usernameFragment: string | null;
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

/** What an `RTCPeerConnection` is made with. Ask again before each restart and before `expiresAt`. */
export interface IceAck {
  ok: true;
  iceServers: IceServerView[];
  iceTransportPolicy: "all" | "relay";
  ttlSeconds: number;
  expiresAt: string;
}

/** An `RTCIceServer`. */
export interface IceServerView {
  urls: string[];
  username: string | null;
  credential: string | null;
}

/**
 * `partyId` is the client's own name for this device (a tab, an installed app), kept when it connects
 * again.
 */
export interface Invite {
  sessionId: string;
  partyId: string;
  media: "audio" | "video";
}

/**
 * What there is to catch up with. `stored` says which of the `pendingIds` are safe, by `clientMsgId`;
 * `call` is the one that rings or runs.
 */
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
  call: CallView | null;
}

/**
 * `afterSeq` is the last message that the client has; `pendingIds` are its own messages that were never
 * acknowledged; `partyId` is the device's name in a call, for one that has connected again.
 */
export interface JoinSession {
  sessionId: string;
  afterSeq?: number;
  pendingIds?: string[];
  partyId?: string | null;
}

/** What concerns one lawyer. */
export interface LawyerPayload {
  lawyerId: string;
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
  status: "REQUESTED" | "ACTIVE" | "PAUSED" | "ENDED" | "FORCE_ENDED" | "DECLINED" | "MISSED" | "CANCELLED";
  reason: "USER_ENDED" | "LAWYER_ENDED" | "ADMIN_ENDED" | "WALLET_EMPTY" | "MAX_AMOUNT" | "PEER_GONE" | "ABANDONED" | "ACCOUNT_DISABLED" | "LAWYER_DECLINED" | "NO_ANSWER" | "LAWYER_NOT_JOINED" | "USER_CANCELLED" | "USER_NOT_JOINED" | "INSUFFICIENT_BALANCE" | "USER_LOST" | "LAWYER_LOST" | null;
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

/**
 * The bill of a session that is served no more for now. `reason` says who is lost: `USER_LOST` or
 * `LAWYER_LOST`; `endsAt` is the instant at which it ends if they do not come back. The bill stopped at
 * their last sign of life.
 */
export interface PausedView {
  sessionId: string;
  elapsedSeconds: number;
  totalAmount: string;
  walletBalance: string | null;
  currency: string;
  ratePerMinute: string;
  remainingSeconds: number | null;
  paidUntil: string | null;
  status: "REQUESTED" | "ACTIVE" | "PAUSED" | "ENDED" | "FORCE_ENDED" | "DECLINED" | "MISSED" | "CANCELLED";
  reason: "USER_ENDED" | "LAWYER_ENDED" | "ADMIN_ENDED" | "WALLET_EMPTY" | "MAX_AMOUNT" | "PEER_GONE" | "ABANDONED" | "ACCOUNT_DISABLED" | "LAWYER_DECLINED" | "NO_ANSWER" | "LAWYER_NOT_JOINED" | "USER_CANCELLED" | "USER_NOT_JOINED" | "INSUFFICIENT_BALANCE" | "USER_LOST" | "LAWYER_LOST" | null;
  lastSeq: number | null;
  endsAt: string;
}

/**
 * Where one waits: 1 is next. `estimatedSeconds` is null where nothing is known. With a `turnUntil` it is
 * one's turn.
 */
export interface PlaceAck {
  ok: true;
  lawyerId: string;
  position: number;
  estimatedSeconds: number | null;
  turnUntil: string | null;
}

/** One's place in a waiting list. With a `reason` the waiting is over: position is 0, and nothing is kept. */
export interface PositionView {
  lawyerId: string;
  position: number;
  estimatedSeconds: number | null;
  reason: string | null;
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
  retryAfterMs?: number | null;
  fields?: FieldProblem[] | null;
  errorId?: string | null;
}

/**
 * The session. `status` is REQUESTED while the lawyer is asked (until `deadline`), ACTIVE with a lawyer
 * who accepts by himself.
 */
export interface RequestAck {
  ok: true;
  sessionId: string;
  status: string;
  requestState: "RINGING" | "ACCEPTED" | "DECLINED" | "MISSED" | "CANCELLED" | "ANSWERED_ELSEWHERE" | null;
  deadline: string | null;
}

/** `maxAmount` caps what the consultation may cost. */
export interface RequestConsultation {
  lawyerId: string;
  maxAmount?: string | null;
}

/**
 * Where the request is. Until `deadline` the lawyer may answer (RINGING), or both must have joined the
 * session (ACCEPTED).
 */
export interface RequestStateView {
  sessionId: string;
  userId: string;
  lawyerId: string;
  state: "RINGING" | "ACCEPTED" | "DECLINED" | "MISSED" | "CANCELLED" | "ANSWERED_ELSEWHERE";
  reason: string | null;
  deadline: string | null;
}

/** Somebody asks for a consultation. It may come twice; `sessionId` tells. */
export interface RingView {
  sessionId: string;
  userId: string;
  lawyerId: string;
  ratePerMinute: string;
  currency: string;
  deadline: string;
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

/**
 * `n` counts this device's signals in this call from 1. `sdp` is for offer, answer and restart (an offer
 * with new ICE credentials), `candidates` for candidates: many in one signal.
 */
export interface SendSignal {
  sessionId: string;
  callId: string;
  n: number;
  kind: "offer" | "answer" | "candidates" | "restart";
  sdp?: string | null;
  candidates?: Candidate[] | null;
}

/** What concerns one session. */
export interface SessionPayload {
  sessionId: string;
}

/** `duplicate`: it was told before, under the same `n`, and is passed on again. */
export interface SignalAck {
  ok: true;
  n: number;
  duplicate: boolean;
}

/**
 * What the other side's device says. Drop an `n` that you have had; `sdp` or `candidates`, as `kind` has
 * it.
 */
export interface SignalView {
  sessionId: string;
  callId: string;
  partyId: string;
  n: number;
  kind: "offer" | "answer" | "candidates" | "restart";
  sdp: string | null;
  candidates: CandidateView[] | null;
  at: string;
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

/** The lawyer is kept free until `deadline`: start the consultation now. */
export interface TurnView {
  lawyerId: string;
  deadline: string;
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
export type ErrorCode = "ANSWERED_ELSEWHERE" | "CALL_NOT_ANSWERED" | "CALL_NOT_FOUND" | "CALL_OVER" | "CALL_RUNNING" | "DRAINING" | "FORBIDDEN" | "IDEMPOTENCY_MISMATCH" | "INSUFFICIENT_BALANCE" | "INTERNAL" | "LAWYER_BUSY" | "LAWYER_FREE" | "LAWYER_NOT_VERIFIED" | "LAWYER_OFFLINE" | "NOT_BOUND" | "NOT_FOUND" | "NOT_JOINED" | "OTHER_PERSON" | "OWN_CALL" | "RATE_LIMITED" | "REQUEST_CLOSED" | "SESSION_NOT_ACTIVE" | "SESSION_PAUSED" | "START_ABORTED" | "STORAGE_BUSY" | "STORAGE_UNAVAILABLE" | "TOO_MANY_SIGNALS" | "UNAUTHENTICATED" | "USER_BUSY" | "VALIDATION_FAILED" | "WAITING_LIST_CLOSED" | "WAITING_LIST_FULL";

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
  /**
   * Ring every device of the other side, for 45 seconds. When the other side has just done the same, both
   * are connected.
   */
  "rtc:invite": { payload: Invite; ack: CallAck };
  /**
   * Answer with this device. The first one is selected, and the others hear `rtc:ended` with
   * ANSWERED_ELSEWHERE.
   */
  "rtc:accept": { payload: Accept; ack: CallAck };
  /** Refuse a ringing call, for all of this person's devices. */
  "rtc:reject": { payload: CallPayload; ack: Ack };
  /** End the call, or take it back while it rings. From any device of the two; repeated, the same answer. */
  "rtc:hangup": { payload: CallPayload; ack: Ack };
  /**
   * Tell the other side's device, and no other. Works while the session is paused, so that a lost
   * connection can be found again.
   */
  "rtc:signal": { payload: SendSignal; ack: SignalAck };
  /** STUN and TURN servers, with credentials that last as long as the money and a little more. */
  "rtc:ice_config": { payload: SessionPayload; ack: IceAck };
  /**
   * As `POST /consult/start`: ask the lawyer for a consultation, or begin it where the lawyer accepts by
   * himself.
   */
  "consult:request": { payload: RequestConsultation; ack: RequestAck };
  /** The lawyer says yes; the first device wins. Billing begins once both have joined the session. */
  "consult:accept": { payload: SessionPayload; ack: RequestAck };
  /** The lawyer says no. */
  "consult:decline": { payload: SessionPayload; ack: RequestAck };
  /** The user takes the request back. */
  "consult:cancel": { payload: SessionPayload; ack: RequestAck };
  /** Wait for a busy lawyer who has a waiting list. Again: one's place. */
  "consult:queue": { payload: LawyerPayload; ack: PlaceAck };
  /** Wait no longer. */
  "consult:unqueue": { payload: LawyerPayload; ack: Ack };
  /** Put a fresh access token behind this connection: from now on it ends when *that* token's log-in does. */
  "auth:refresh": { payload: AuthRefresh; ack: AuthAck };
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
  /** The other side calls. */
  "rtc:ring": CallView;
  /**
   * The call was answered, or the other side's device is back with a new connection. Comes every 30
   * seconds, too.
   */
  "rtc:state": CallView;
  /** The other side's device says something. */
  "rtc:signal": SignalView;
  /** The call is over. */
  "rtc:ended": CallEndedView;
  /** The session is ACTIVE and billed from now. */
  "session:started": BillView;
  /** The running bill, with the chat's `lastSeq`. */
  "session:tick": BillView;
  /** The money lasts for less than the threshold. */
  "session:low_balance": LowBalanceView;
  /** The money lasts longer than before. */
  "session:recharged": BillView;
  /** Somebody who had joined is lost: nothing is billed since then, and nothing can be sent. */
  "session:paused": PausedView;
  /** They are back: the session is ACTIVE and billed from now. */
  "session:resumed": BillView;
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
  /** To the lawyer: somebody asks for a consultation. */
  "consult:ring": RingView;
  /** A request is in another state. The lawyer's devices that did not accept hear ANSWERED_ELSEWHERE. */
  "consult:state": RequestStateView;
  /** To the lawyer: you were taken offline. */
  "consult:away": AwayView;
  /** To who waits: the place in the list is another, or gone. */
  "consult:position": PositionView;
  /** To who waits: it is your turn. */
  "consult:turn": TurnView;
  /** The server is about to close this connection. */
  "server:bye": ByeView;
}
