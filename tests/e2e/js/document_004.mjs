// Document 004 from its first line to its last with the npm client, as an app team would write it.
//   node document_004.mjs URL ADMIN_EMAIL ADMIN_PASSWORD
// Prints one JSON line a step; the first thing that is not as promised ends it with exit code 1.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { io } from "socket.io-client";

const [url, adminEmail, adminPassword] = process.argv.slice(2);
const PATIENCE_MS = 15_000;
const HEARD_LATE_MS = 1_500;
const PASSWORD = "correct horse";

const step = (name, facts = {}) => console.log(JSON.stringify({ step: name, ...facts }));

async function call(method, path, { token, body, key, status = [200, 201] } = {}) {
  const headers = { "Content-Type": "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (key) headers["Idempotency-Key"] = key;
  const response = await fetch(url + path, { method, headers, body: body && JSON.stringify(body) });
  const answer = await response.json();
  assert.ok([status].flat().includes(response.status), `${method} ${path}: ${response.status} ${JSON.stringify(answer)}`);
  return answer;
}
const get = (path, token) => call("GET", path, { token });
const post = (path, body, token, more = {}) => call("POST", path, { body, token, ...more });

// A device that remembers what it heard. `heard` answers the first event that fits, past or future.
const devices = [];
class Device {
  constructor(token, options = {}) {
    this.events = [];
    this.waiting = new Set();
    this.socket = io(url, { transports: ["websocket"], auth: { token }, forceNew: true, ...options });
    this.socket.onAny((name, payload) => {
      this.events.push({ name, payload, at: Date.now() });
      for (const look of [...this.waiting]) look();
    });
    devices.push(this);
  }
  connected() {
    return within("connect", new Promise((resolve, reject) => {
      this.socket.once("connect", () => resolve(this));
      this.socket.once("connect_error", reject);
    }));
  }
  heard(name, where = () => true) {
    return within(name, new Promise((resolve) => {
      const look = () => {
        const event = this.events.find((e) => e.name === name && where(e.payload));
        if (event) {
          this.waiting.delete(look);
          resolve(event);
        }
      };
      this.waiting.add(look);
      look();
    }));
  }
  all(name) {
    return this.events.filter((e) => e.name === name).map((e) => e.payload);
  }
  call(event, payload) {
    return this.socket.timeout(PATIENCE_MS).emitWithAck(event, payload);
  }
  async ok(event, payload) {
    const ack = await this.call(event, payload);
    assert.equal(ack.ok, true, `${event}: ${JSON.stringify(ack)}`);
    return ack;
  }
  async refused(event, payload, code) {
    const ack = await this.call(event, payload);
    assert.equal(ack.ok, false, `${event}: ${JSON.stringify(ack)}`);
    assert.equal(ack.error.code, code);
    return ack;
  }
}

function within(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} never came`)), PATIENCE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function register(path, name, more = {}) {
  const email = `${randomUUID()}@example.com`;
  const answer = await post(path, { email, password: PASSWORD, name, ...more });
  return { id: answer.user.id, email, token: answer.accessToken, refreshToken: answer.refreshToken };
}

async function main() {
  // 1 Auth
  const user = await register("/auth/register", "Asha");
  const login = await post("/auth/login", { email: user.email, password: PASSWORD });
  const claims = JSON.parse(Buffer.from(login.accessToken.split(".")[1], "base64url"));
  assert.deepEqual([claims.sub, claims.role], [user.id, "USER"]);
  const refreshed = await post("/auth/refresh", { refreshToken: login.refreshToken });
  user.token = refreshed.accessToken;
  step("auth");

  // 3 Lawyer
  const lawyer = await register("/lawyer/register", "Adv. Rao", {
    ratePerMinute: "60.00",
    specializations: ["Property"],
    languages: ["English"],
    barCouncilNumber: `KAR/${randomUUID().slice(0, 8)}/2015`,
    bio: "Tenancy law.",
  });
  const admin = (await post("/auth/login", { email: adminEmail, password: adminPassword })).accessToken;
  assert.equal((await call("PATCH", `/lawyer/${lawyer.id}/verify`, { token: admin, body: {} })).isVerified, true);
  await call("PATCH", "/lawyer/availability", { token: lawyer.token, body: { isOnline: true } });
  step("lawyer");

  // 2 Wallet
  const poor = await post("/consult/start", { lawyerId: lawyer.id }, user.token, { status: 402 });
  assert.equal(poor.code, "INSUFFICIENT_BALANCE");
  const key = randomUUID();
  const recharge = await post("/wallet/recharge", { amount: "6.00" }, user.token, { key });
  assert.deepEqual(await post("/wallet/recharge", { amount: "6.00" }, user.token, { key }), recharge);
  assert.equal((await get("/wallet/balance", user.token)).walletBalance, "6.00");
  assert.equal((await get(`/consult/quote?lawyerId=${lawyer.id}`, user.token)).affordableSeconds, 6);
  step("wallet");

  // 6 Chat: who may connect, and how.
  await refusals(user.token);
  const phone = await new Device(user.token).connected();
  const tablet = await new Device(user.token).connected();
  let desk = await new Device(lawyer.token).connected();
  const stranger = await new Device((await register("/auth/register", "Stranger")).token).connected();
  step("connected");

  // 4 Consultation
  const session = await post("/consult/start", { lawyerId: lawyer.id }, user.token);
  const { sessionId } = session;
  for (const device of [phone, tablet, desk]) await device.heard("session:started", (e) => e.sessionId === sessionId);
  const busy = await post("/consult/start", { lawyerId: lawyer.id }, user.token, { status: 409 });
  assert.equal(busy.code, "USER_BUSY");
  for (const device of [phone, tablet, desk]) {
    const joined = await device.ok("join_session", { sessionId });
    assert.deepEqual([joined.lastSeq, joined.messages, joined.billing.status], [0, [], "ACTIVE"]);
  }
  for (const [event, more] of [["join_session", {}], ["send_message", { body: "Let me in." }], ["mark_seen", {}]]) {
    await stranger.refused(event, { sessionId, ...more }, "NOT_FOUND");
  }
  step("joined");

  // Both ways: SENT, DELIVERED, SEEN.
  const hello = await phone.ok("send_message", { sessionId, clientMsgId: "m-1", body: "Hello." });
  assert.deepEqual([hello.seq, hello.status, hello.duplicate], [1, "SENT", false]);
  for (const device of [phone, tablet, desk]) {
    const { payload } = await device.heard("new_message", (m) => m.seq === 1);
    assert.deepEqual([payload.senderId, payload.body, payload.status], [user.id, "Hello.", "SENT"]);
  }
  await desk.ok("message_delivered", { sessionId, messageId: hello.id });
  for (const device of [phone, tablet]) {
    const { payload } = await device.heard("message_status", (s) => s.userId === lawyer.id);
    assert.deepEqual([payload.deliveredSeq, payload.seenSeq], [1, 0]);
  }
  assert.equal((await get(`/chat/${sessionId}`, user.token)).items[0].status, "DELIVERED");
  await desk.ok("mark_seen", { sessionId });
  await phone.heard("message_status", (s) => s.userId === lawyer.id && s.seenSeq === 1);
  assert.equal((await get(`/chat/${sessionId}`, user.token)).items[0].status, "SEEN");
  const reply = await desk.ok("send_message", { sessionId, clientMsgId: "m-1", body: "Good day." });
  assert.equal(reply.seq, 2);
  await phone.ok("mark_seen", { sessionId });
  await desk.heard("message_status", (s) => s.userId === user.id && s.seenSeq === 2);
  step("conversation");

  // The same clientMsgId again; a connection that drops and comes back with afterSeq.
  const again = await phone.ok("send_message", { sessionId, clientMsgId: "m-1", body: "Hello." });
  assert.deepEqual([again.id, again.seq, again.duplicate], [hello.id, 1, true]);
  desk.socket.disconnect();
  await phone.ok("send_message", { sessionId, clientMsgId: "m-2", body: "Bye." });
  desk = await new Device(lawyer.token).connected();
  const missed = await desk.ok("join_session", { sessionId, afterSeq: 2, pendingIds: ["m-1", "m-9"] });
  assert.deepEqual(missed.messages.map((m) => [m.seq, m.body]), [[3, "Bye."]]);
  assert.deepEqual(Object.keys(missed.stored), ["m-1"]);
  await desk.ok("mark_seen", { sessionId });
  step("reconnected");

  // 5 Billing: a recharge extends, ticks arrive, the end comes by force at zero.
  await post("/wallet/recharge", { amount: "1.00" }, user.token);
  for (const device of [phone, tablet, desk]) {
    const { payload } = await device.heard("session:recharged");
    assert.equal(payload.remainingSeconds + payload.elapsedSeconds, 7);
  }
  const endsAt = Date.parse(session.startedAt) + 7_000;
  for (const device of [phone, tablet, desk]) {
    const { payload, at } = await device.heard("session:ended");
    assert.deepEqual([payload.status, payload.reason, payload.totalAmount], ["FORCE_ENDED", "WALLET_EMPTY", "7.00"]);
    assert.ok(at >= endsAt && at - endsAt < HEARD_LATE_MS, `heard ${at - endsAt} ms after the last paid second`);
    const told = device.events.filter((e) => e.name.startsWith("session:")).map((e) => e.payload);
    assert.ok(device.all("session:tick").length > 0);
    for (const tick of told) {
      assert.equal(Number(tick.totalAmount), tick.elapsedSeconds);
      if (device === desk) assert.equal(tick.walletBalance, null);
    }
  }
  await phone.heard("session:low_balance", (e) => e.thresholdSeconds === 30);
  const final = await get(`/consult/${sessionId}`, user.token);
  assert.equal(Date.parse(final.endedAt), endsAt);
  assert.deepEqual(final.timeline.map((row) => row.event), ["start", "end"]);
  assert.deepEqual([final.durationSeconds, final.totalAmount], [7, "7.00"]);
  await phone.refused("send_message", { sessionId, body: "One more?" }, "SESSION_NOT_ACTIVE");
  step("ended", { heardAfterMs: phone.events.find((e) => e.name === "session:ended").at - endsAt });

  // The DEBIT row, 7 history, 8 review, 9 earnings.
  const rows = (await get("/wallet/transactions", user.token)).items;
  assert.deepEqual(rows.map((r) => [r.type, r.amount]), [["DEBIT", "7.00"], ["CREDIT", "1.00"], ["CREDIT", "6.00"]]);
  const history = (await get(`/chat/${sessionId}`, lawyer.token)).items;
  assert.deepEqual(history.map((m) => [m.seq, m.status]), [[1, "SEEN"], [2, "SEEN"], [3, "SEEN"]]);
  await post("/review", { sessionId, rating: 5, comment: "Clear." }, user.token);
  assert.equal((await get(`/lawyer/${lawyer.id}`, user.token)).rating, "5.00");
  const summary = await get("/lawyer/earnings/summary", lawyer.token);
  assert.deepEqual([summary.totalEarnings, summary.todayEarnings, summary.totalSessions], ["7.00", "7.00", 1]);
  assert.equal((await get("/lawyer/earnings", lawyer.token)).items[0].net, "7.00");
  assert.deepEqual(stranger.events, [], "a stranger hears nothing");
  step("books");

  // Logout closes the sockets of that login for good: the client's library must not come back.
  const left = new Promise((resolve) => phone.socket.once("disconnect", resolve));
  await post("/auth/logout", {}, user.token);
  const bye = await phone.heard("server:bye");
  assert.deepEqual([bye.payload.code, bye.payload.reconnect], [3500, false]);
  assert.equal(await within("disconnect", left), "io server disconnect");
  assert.equal(phone.socket.active, false, "socket.io-client takes it for final");
  step("done");
}

async function refusals(token) {
  for (const auth of [undefined, {}, { token: "x" }, { token: `${token}x` }]) {
    const device = new Device(undefined, { auth, reconnection: false });
    await assert.rejects(device.connected(), (error) => {
      assert.equal(error.data.code, "UNAUTHENTICATED");
      return true;
    });
    assert.equal(device.socket.active, false, "a refusal is final: no storm of reconnects");
  }
  // Without the option the client polls first; it is told what to do instead.
  const polling = new Device(token, { transports: undefined, reconnection: false });
  // Read at once: the library empties the request after telling of it.
  const answer = new Promise((resolve) => {
    polling.socket.once("connect_error", (error) => resolve([error.description, error.context.responseText]));
  });
  const [status, text] = await within("a refusal", answer);
  assert.equal(status, 400);
  assert.match(text, /transports: \['websocket'\]/);
}

try {
  await main();
  process.exitCode = 0;
} catch (error) {
  console.log(JSON.stringify({ step: "failed", error: String(error?.stack ?? error) }));
  process.exitCode = 1;
} finally {
  for (const device of devices) device.socket.disconnect();
}
