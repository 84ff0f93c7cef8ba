// Node's Socket.IO as a chat relay that stores nothing and checks nothing: what `bench/chat_throughput.py` compares with.
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const io = new Server(http, { transports: ["websocket"], pingInterval: 10_000, pingTimeout: 8_000 });
const lastSeq = new Map();

io.on("connection", (socket) => {
  socket.on("join_session", ({ sessionId }, ack) => {
    socket.join(sessionId);
    ack({ ok: true });
  });
  socket.on("send_message", ({ sessionId, clientMsgId, body }, ack) => {
    const seq = (lastSeq.get(sessionId) ?? 0) + 1;
    lastSeq.set(sessionId, seq);
    const id = `${sessionId}:${String(seq).padStart(9, "0")}`;
    const createdAt = new Date().toISOString();
    io.to(sessionId).emit("new_message", {
      id, sessionId, seq, senderId: socket.id, clientMsgId, body,
      status: "SENT", createdAt, deliveredAt: null, seenAt: null,
    });
    ack({ ok: true, id, seq, status: "SENT", createdAt, clientMsgId, duplicate: false });
  });
});

http.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${http.address().port}`));
