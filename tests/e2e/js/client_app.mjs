// An app on top of @tarazu/client, as small as one can be: does what it is told on standard input, tells what it was given.
//   node client_app.mjs PATH_OF_THE_CLIENT
// A line is one JSON object each way.

import { subscribe } from "node:diagnostics_channel";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const { Backoff, Client, Refused, SignedOut, WebStorage } = await import(pathToFileURL(process.argv[2]).href);

const tell = (facts) => process.stdout.write(`${JSON.stringify(facts)}\n`);
const sockets = new Set();
subscribe("net.client.socket", ({ socket }) => {
  sockets.add(socket);
  socket.once("close", () => sockets.delete(socket));
});

// As localStorage: one file, written before `setItem` returns.
class FileValues {
  constructor(path) {
    this.path = path;
    this.values = existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : {};
  }
  getItem(key) {
    return this.values[key] ?? null;
  }
  setItem(key, value) {
    this.values[key] = value;
    writeFileSync(this.path, JSON.stringify(this.values));
  }
}

let client;
let chat;
let urls = [];
let tokens = [];

const commands = {
  async open({ sessionId, userId, afterSeq = 0, storage, ...given }) {
    ({ urls, tokens } = given);
    client = new Client({
      url: () => urls[Math.floor(Math.random() * urls.length)],
      token: async () => {
        tell({ told: "token" });
        return tokens.length > 1 ? tokens.shift() : tokens[0];
      },
      userId,
      backoff: new Backoff(50, 1_000),
      ...(storage ? { storage: new WebStorage(new FileValues(storage)) } : {}),
    });
    client.onAny((event, payload) => {
      if (event !== "new_message") tell({ told: "event", event, payload });
    });
    client.stopped.catch((error) => tell({ told: "stopped", code: error.code, is: error instanceof SignedOut }));
    chat = await client.open(sessionId, {
      afterSeq,
      onMessage: (message) => tell({ told: "message", message }),
      onMarks: (userId_, mark) => tell({ told: "marks", userId: userId_, mark }),
    });
    chat.joined.then(
      () => tell({ told: "joined" }),
      (error) => tell({ told: "kept out", code: error.code }),
    );
  },
  async send({ body, id }) {
    const sent = await chat.send(body, id);
    tell({ told: "outbox", id: sent.clientMsgId });
    sent.stored.then(
      (seq) => tell({ told: "stored", id: sent.clientMsgId, seq }),
      (error) => tell({ told: "failed", id: sent.clientMsgId, code: error instanceof Refused ? error.code : String(error) }),
    );
  },
  seen: () => chat.seen(),
  typing: () => chat.typing(),
  state: ({ message }) => tell({ told: "state", state: chat.state(message), waiting: chat.waiting }),
  urls: (given) => void (urls = given.urls),
  // The line breaks: nothing is said, nothing is flushed.
  tear: () => sockets.forEach((socket) => socket.resetAndDestroy()),
  async close() {
    await client.close();
    tell({ told: "closed" });
    process.exit(0);
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { do: name, ...facts } = JSON.parse(line);
  await commands[name](facts);
}
