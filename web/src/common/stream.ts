// The live stream (/v1/stream): Server-Sent Events read by fetch, because EventSource cannot send a token. It comes
// back by itself with Last-Event-ID, so that nothing is missed and nothing comes twice.

import { session } from "./session.ts";

export interface Message {
  /** Position in the log; "" before the first. */
  id: string;
  /** Event type, `gotong.incident.updated.v1`; "reset" when the position asked for is not in the log. */
  event: string;
  data: string;
}

/** Takes a stream of text apart into messages; a comment counts as a sign of life only. */
export class Parser {
  private rest = "";
  private id = "";
  private event = "";
  private data: string[] = [];

  push(chunk: string): Message[] {
    const found: Message[] = [];
    const lines = (this.rest + chunk).split("\n");
    this.rest = lines.pop() ?? "";
    for (const whole of lines) {
      const line = whole.endsWith("\r") ? whole.slice(0, -1) : whole;
      if (line === "") {
        if (this.data.length > 0) {
          found.push({ id: this.id, event: this.event || "message", data: this.data.join("\n") });
        }
        this.event = "";
        this.data = [];
        continue;
      }
      const colon = line.indexOf(":");
      if (colon === 0) continue;
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
      if (field === "id") this.id = value;
      else if (field === "event") this.event = value;
      else if (field === "data") this.data.push(value);
    }
    return found;
  }
}

export type State = "connecting" | "live" | "waiting" | "denied";

export interface Watch {
  /** Path with its query. */
  path: string;
  /** Position to go on after; null: what comes next. */
  after: string | null;
  onMessages(messages: Message[]): void;
  onState?(state: State): void;
}

/** The server says something every 15 s; after twice that without a sound the connection counts as dead. */
const SILENCE_MS = 32_000;
const PAUSES_MS = [500, 1_000, 2_000, 5_000, 10_000];

/** An open stream that mends itself. `heard` is when it last said anything, comments included. */
export class Stream {
  lastId: string | null;
  heard = Date.now();
  state: State = "connecting";
  private stopped = false;
  private opened = false;
  private failures = 0;
  private abort: AbortController | null = null;
  private wake: (() => void) | null = null;

  constructor(private readonly watch: Watch) {
    this.lastId = watch.after;
    void this.run();
    addEventListener("online", this.hurry);
    addEventListener("offline", this.drop);
  }

  /** Try again now instead of after the pause. */
  readonly hurry = (): void => {
    this.failures = 0;
    this.wake?.();
  };

  /** The device lost its network: what is open is dead, whether it knows or not. */
  private readonly drop = (): void => this.abort?.abort();

  stop(): void {
    this.stopped = true;
    removeEventListener("online", this.hurry);
    removeEventListener("offline", this.drop);
    this.abort?.abort();
    this.wake?.();
  }

  private set(state: State): void {
    if (state === this.state || this.stopped) return;
    this.state = state;
    this.watch.onState?.(state);
  }

  private async run(): Promise<void> {
    while (!this.stopped) {
      try {
        const status = await this.read();
        if (status === 401 || status === 403) {
          this.set("denied");
          return;
        }
      } catch {
        // broken off; come back
      }
      if (this.stopped) return;
      this.set("waiting");
      const pause = PAUSES_MS[Math.min(this.failures++, PAUSES_MS.length - 1)] ?? 1_000;
      await new Promise<void>((done) => {
        const timer = setTimeout(done, pause * (0.75 + Math.random() / 2));
        this.wake = () => {
          clearTimeout(timer);
          done();
        };
      });
      this.wake = null;
    }
  }

  private async read(): Promise<number> {
    const abort = (this.abort = new AbortController());
    const headers: Record<string, string> = { Accept: "text/event-stream" };
    const token = session()?.token;
    if (token !== undefined) headers["Authorization"] = `Bearer ${token}`;
    if (this.lastId !== null) headers["Last-Event-ID"] = this.lastId;
    let silence = setTimeout(() => abort.abort(), SILENCE_MS);
    try {
      const answer = await fetch(this.watch.path, { headers, signal: abort.signal, cache: "no-store" });
      if (!answer.ok || answer.body === null) return answer.status;
      // Broken off before the first message came: nobody knows where we were, so what passed meanwhile is fetched anew.
      if (this.opened && this.lastId === null) this.watch.onMessages([{ id: "", event: "reset", data: "{}" }]);
      this.opened = true;
      const reader = answer.body.getReader();
      const decoder = new TextDecoder();
      const parser = new Parser();
      for (;;) {
        const { done, value } = await reader.read();
        if (done || this.stopped) return 200;
        clearTimeout(silence);
        silence = setTimeout(() => abort.abort(), SILENCE_MS);
        this.heard = Date.now();
        this.failures = 0;
        this.set("live");
        const messages = parser.push(decoder.decode(value, { stream: true }));
        const last = messages.at(-1);
        if (last === undefined) continue;
        this.watch.onMessages(messages);
        // Only after they were taken in: what fails on the way comes again.
        if (last.id !== "") this.lastId = last.id;
      }
    } finally {
      clearTimeout(silence);
    }
  }
}
