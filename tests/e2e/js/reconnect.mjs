// A client that lives through a restart of the server by itself: socket.io-client's own reconnection, then afterSeq.
//   node reconnect.mjs URL TOKEN SESSION_ID
// Says {"step": "ready"} once it has joined and sent; ends when it has reconnected, caught up and sent again.

import assert from "node:assert/strict";
import { io } from "socket.io-client";

const [url, token, sessionId] = process.argv.slice(2);
const PATIENCE_MS = 20_000;
const step = (name, facts = {}) => console.log(JSON.stringify({ step: name, ...facts }));
const socket = io(url, {
  transports: ["websocket"],
  auth: { token },
  reconnectionDelay: 50,
  reconnectionDelayMax: 200,
});
const ask = (event, payload) => socket.timeout(PATIENCE_MS).emitWithAck(event, payload);
const once = (name) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${name} never came`)), PATIENCE_MS);
    socket.once(name, (payload) => (clearTimeout(timer), resolve(payload)));
  });

try {
  await once("connect");
  assert.equal((await ask("join_session", { sessionId })).ok, true);
  const first = await ask("send_message", { sessionId, clientMsgId: "n-1", body: "Before the restart." });
  assert.equal(first.ok, true);
  const [bye, gone] = [once("server:bye"), once("disconnect")];
  step("ready");
  const farewell = await bye;
  assert.deepEqual([farewell.code, farewell.reconnect], [3001, true]);
  const reason = await gone;
  assert.notEqual(reason, "io server disconnect", "that one the library would not reconnect from");
  await once("connect");
  const joined = await ask("join_session", { sessionId, afterSeq: 0, pendingIds: ["n-1", "n-2"] });
  assert.equal(joined.ok, true, JSON.stringify(joined));
  assert.equal(joined.billing.status, "ACTIVE");
  assert.deepEqual(Object.keys(joined.stored), ["n-1"]);
  const again = await ask("send_message", { sessionId, clientMsgId: "n-1", body: "Before the restart." });
  assert.deepEqual([again.id, again.duplicate], [first.id, true]);
  const second = await ask("send_message", { sessionId, clientMsgId: "n-2", body: "After it." });
  assert.deepEqual([second.ok, second.seq], [true, 2], JSON.stringify(second));
  await once("session:tick");
  step("done", { reason });
  process.exitCode = 0;
} catch (error) {
  step("failed", { error: String(error?.stack ?? error) });
  process.exitCode = 1;
} finally {
  socket.disconnect();
}
