// How far each person has received and read; from that, the state of every message.

export type State = "SENT" | "DELIVERED" | "SEEN";

/** Everything up to these positions. */
export interface Mark {
  readonly deliveredSeq: number;
  readonly seenSeq: number;
}

const NOTHING: Mark = { deliveredSeq: 0, seenSeq: 0 };

/** Watermarks by person. They only rise: an older word that comes late changes nothing. */
export class Marks {
  #marks = new Map<string, Mark>();

  of(userId: string): Mark {
    return this.#marks.get(userId) ?? NOTHING;
  }

  /** Whether it is news. */
  take(userId: string, told: Mark): boolean {
    const old = this.of(userId);
    const seenSeq = Math.max(old.seenSeq, told.seenSeq);
    const deliveredSeq = Math.max(old.deliveredSeq, told.deliveredSeq, seenSeq);
    this.#marks.set(userId, { deliveredSeq, seenSeq });
    return deliveredSeq !== old.deliveredSeq || seenSeq !== old.seenSeq;
  }

  /** Of a stored message: what those have done who did not write it. */
  state(seq: number, senderId: string): State {
    const others = [...this.#marks].filter(([userId]) => userId !== senderId).map(([, mark]) => mark);
    if (others.some((mark) => seq <= mark.seenSeq)) return "SEEN";
    return others.some((mark) => seq <= mark.deliveredSeq) ? "DELIVERED" : "SENT";
  }
}
