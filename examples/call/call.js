// A call in a consultation, with nothing but the browser and socket.io-client. docs/calls.md says what the events mean.

// Candidates of so many milliseconds go in one signal.
const BATCH_MS = 200;
const WAITS_MS = 10_000;

export class Call extends EventTarget {
  // `socket` is connected (or will be) with the access token of `userId`, one of the session's two people.
  constructor(socket, sessionId, userId) {
    super();
    Object.assign(this, { socket, sessionId, userId });
    // One name for this page, for as long as it lives: the server knows it again after a lost connection.
    this.partyId = crypto.randomUUID();
    this.call = null;
    this.peer = null;
    socket.on("rtc:ring", (call) => this.#ours(call) && this.#show("ringing", (this.call = call)));
    socket.on("rtc:state", (call) => this.#ours(call) && this.#connected(call));
    socket.on("rtc:signal", (signal) => this.#ours(signal) && this.#inTurn(() => this.#hear(signal)));
    socket.on("rtc:ended", (ended) => this.#ours(ended) && this.#end(ended));
    socket.on("session:ended", (bill) => this.#ours(bill) && this.#end({ reason: "SESSION_ENDED", callId: this.call?.callId }));
    socket.on("connect", () => this.join());
  }

  // After every connect: who was in the call is in it again, and hears what it missed.
  async join() {
    const { call } = await this.#ask("join_session", { sessionId: this.sessionId, partyId: this.partyId });
    if (!call) return this.call && this.#end({ reason: "HUNG_UP", callId: this.call.callId });
    this.call = call;
    if (call.state === "CONNECTED" && this.#isMine(call)) return this.#connected(call);
    if (call.state === "RINGING" && call.callerId !== this.userId) return this.#show("ringing", call);
    // Another device of ours is in it, or was: from here it can be hung up.
    this.#show(this.#isMine(call) ? "calling" : "elsewhere", call);
  }

  async invite(media) {
    await this.#devices(media);
    const { call } = await this.#ask("rtc:invite", { sessionId: this.sessionId, partyId: this.partyId, media });
    this.call = call;
    if (call.state === "CONNECTED") return this.#connected(call); // the other side has called, too
    this.#show("calling", call);
  }

  async accept() {
    await this.#devices(this.call.media);
    const { call } = await this.#ask("rtc:accept", { sessionId: this.sessionId, callId: this.call.callId, partyId: this.partyId });
    this.#connected(call);
  }

  reject() { return this.#ask("rtc:reject", { sessionId: this.sessionId, callId: this.call.callId }); }
  // Look for a new way, after a change of networks for instance. Only the caller can; the other side's state comes along.
  restart() { this.#inTurn(() => this.#offer("restart")); }
  hangUp() { return this.#ask("rtc:hangup", { sessionId: this.sessionId, callId: this.call.callId }); }

  // --- what the two devices tell each other

  #connected(call) {
    this.call = call;
    this.#inTurn(async () => {
      if (!this.peer) {
        await this.#open();
        this.#show("connecting", call);
        if (this.#isCaller()) await this.#offer("offer");
      } else if (this.#isCaller() && this.peer.connectionState !== "connected") {
        await this.#offer("restart");
      }
    });
  }

  async #open() {
    this.n = 0;
    this.heard = new Set();
    this.early = [];
    const config = await this.#ask("rtc:ice_config", { sessionId: this.sessionId });
    const peer = (this.peer = new RTCPeerConnection(asConfiguration(config)));
    for (const track of this.local.getTracks()) peer.addTrack(track, this.local);
    peer.ontrack = ({ streams }) => this.#show("media", streams[0]);
    peer.onicecandidate = ({ candidate }) => this.#gather(candidate ? candidate.toJSON() : { candidate: "" });
    peer.onconnectionstatechange = () => {
      this.#show(peer.connectionState, this.call);
      if (peer.connectionState === "failed" && this.#isCaller()) this.#inTurn(() => this.#offer("restart"));
    };
  }

  // Only the caller makes offers: then two can never cross.
  async #offer(kind) {
    if (kind === "restart") {
      // The old credentials may have expired.
      this.peer.setConfiguration(asConfiguration(await this.#ask("rtc:ice_config", { sessionId: this.sessionId })));
      this.peer.restartIce();
    }
    await this.peer.setLocalDescription();
    await this.#say(kind, { sdp: this.peer.localDescription.sdp });
  }

  async #hear({ partyId, n, kind, sdp, candidates }) {
    if (!this.peer || this.heard.has(`${partyId} ${n}`)) return;
    this.heard.add(`${partyId} ${n}`);
    if (kind === "candidates") {
      if (!this.peer.remoteDescription) return this.early.push(...candidates);
      for (const candidate of candidates) await this.peer.addIceCandidate(candidate);
      return;
    }
    await this.peer.setRemoteDescription({ type: kind === "answer" ? "answer" : "offer", sdp });
    for (const candidate of this.early.splice(0)) await this.peer.addIceCandidate(candidate);
    if (kind === "answer") return;
    await this.peer.setLocalDescription();
    await this.#say("answer", { sdp: this.peer.localDescription.sdp });
  }

  #gather(candidate) {
    if (!this.batch) {
      this.batch = [];
      setTimeout(() => this.#inTurn(async () => {
        const candidates = this.batch.splice(0);
        this.batch = null;
        if (this.peer) await this.#say("candidates", { candidates });
      }), BATCH_MS);
    }
    this.batch.push(candidate);
  }

  // The same `n` may be sent again: the server and the other side know it.
  #say(kind, body) {
    this.n += 1;
    return this.#ask("rtc:signal", { sessionId: this.sessionId, callId: this.call.callId, n: this.n, kind, ...body });
  }

  // --- the end, and what all of it needs

  #end({ reason, callId }) {
    if (!this.call || callId !== this.call.callId) return;
    this.peer?.close();
    for (const track of this.local?.getTracks() ?? []) track.stop();
    this.ended = this.peer;
    this.peer = this.local = this.call = null;
    this.#show("ended", reason);
  }

  async #devices(media) {
    this.local = await navigator.mediaDevices.getUserMedia({ audio: true, video: media === "video" });
    this.#show("local", this.local);
  }

  #inTurn(work) {
    this.turn = (this.turn ?? Promise.resolve()).then(work).catch((problem) => this.#show("problem", problem));
  }

  async #ask(event, payload) {
    const ack = await this.socket.timeout(WAITS_MS).emitWithAck(event, payload);
    if (!ack.ok) throw Object.assign(new Error(ack.error.message), ack.error);
    return ack;
  }

  #ours({ sessionId }) { return sessionId === this.sessionId; }
  #isMine(call) { return this.partyId === call.callerPartyId || this.partyId === call.calleePartyId; }
  #isCaller() { return this.partyId === this.call.callerPartyId; }
  #show(name, detail) { this.dispatchEvent(new CustomEvent("news", { detail: { name, detail } })); }
}

function asConfiguration({ iceServers, iceTransportPolicy }) {
  return { iceServers: iceServers.map(({ urls, username, credential }) => (username ? { urls, username, credential } : { urls })), iceTransportPolicy };
}
