// The outbox: what was written goes out in its order, exactly once, whenever there is a line. Run by the page and, when
// no page is open, by the service worker. Every try of an item has the same key and the same bytes, so the server takes
// a repeat for a repeat.

import { changed, drop, items, keepValue, newKey, one, put, value, type Item, type Media, type Problem } from "./store.ts";

export interface Session {
  responder_id: string;
  token: string;
  expires_at: string;
}

/** How a round ended. `reached`: the server answered; null: nothing was asked. `wait`: seconds that it asks for. */
export interface Round {
  sent: number;
  left: number;
  reached: boolean | null;
  wait: number;
}

/** A photograph of 60 kB takes ten seconds at 50 kbit/s; a call without one should take two. */
const PATIENCE_MS = 30_000;
const PATIENCE_PHOTO_MS = 120_000;
const TRIES_OF_A_CONFLICT = 3;
const TRIES_OF_A_FAULT = 20;
const KEPT_MS = 30 * 86_400_000;

export async function session(): Promise<Session | null> {
  return (await value<Session | null>("session")) ?? null;
}

async function device(): Promise<string> {
  let known = await value<string>("device");
  if (known === undefined) await keepValue("device", (known = newKey()));
  return known;
}

let current: AbortController | null = null;

/** An answer of the server, or none (`status` 0): a page of a hotspot that wants a login is no answer of ours. */
export interface Answer {
  status: number;
  wait: number;
  body: Record<string, unknown>;
}

export async function call(
  method: string,
  path: string,
  options: { body?: BodyInit; headers?: Record<string, string>; token?: string | undefined; patience?: number } = {},
): Promise<Answer> {
  const none = { status: 0, wait: 0, body: {} };
  const abort = (current = new AbortController());
  const timer = setTimeout(() => abort.abort(), options.patience ?? PATIENCE_MS);
  try {
    const answer = await fetch(path, {
      method,
      headers: {
        Accept: "application/json",
        "Gotong-Device": await device(),
        ...(options.token ? { Authorization: `Bearer ${options.token}` } : {}),
        ...options.headers,
      },
      body: options.body ?? null,
      signal: abort.signal,
      cache: "no-store",
      redirect: "error",
    });
    const wait = Number(answer.headers.get("Retry-After")) || 0;
    if (!/json/.test(answer.headers.get("Content-Type") ?? "")) return { ...none, status: answer.status >= 400 ? answer.status : 0, wait };
    return { status: answer.status, wait, body: (await answer.json()) as Record<string, unknown> };
  } catch {
    return none;
  } finally {
    clearTimeout(timer);
  }
}

/** Send what waits, unless a page or the worker is at it already. */
export async function flush(): Promise<Round | null> {
  const locks: LockManager | undefined = navigator.locks;
  if (locks === undefined) return busy ? null : sendAll();
  return locks.request("gotong-outbox", { ifAvailable: true }, (lock) => (lock === null ? null : sendAll()));
}

let busy = false;

async function sendAll(): Promise<Round> {
  busy = true;
  const round: Round = { sent: 0, left: 0, reached: null, wait: 0 };
  try {
    const held = new Set<string>();
    for (const item of await items()) {
      if (item.state !== "waiting") {
        if (item.settled !== null && item.settled < Date.now() - KEPT_MS) await drop(item.key);
        continue;
      }
      const token = item.signed ? (await session())?.token : undefined;
      if (round.reached === false || (item.signed && !token) || (item.group !== null && held.has(item.group))) {
        round.left++;
        continue;
      }
      const answer = await send(item, token);
      item.tries++;
      round.reached = answer.status !== 0 && answer.status !== 429 && answer.status !== 503;
      if (answer.status >= 200 && answer.status < 300) {
        await settle(item, answer.body);
        round.sent++;
      } else if (mayPass(item, answer)) {
        round.left++;
        round.wait = Math.max(round.wait, answer.wait);
        if (answer.status === 401) await keepValue("session", null);
        if (item.group !== null) held.add(item.group);
        item.problem = answer.status === 0 ? null : problemOf(answer);
        await save(item);
      } else {
        await refuse(item, problemOf(answer));
      }
      changed();
    }
  } finally {
    busy = false;
  }
  return round;
}

async function send(item: Item, token: string | undefined): Promise<Answer> {
  // The photographs first: what they are called by the server is part of the report. The same photograph sent twice is
  // kept once, so only the report needs a key.
  for (let photo = item.photos[0]; photo !== undefined; photo = item.photos[0]) {
    const answer = await call("POST", "/v1/media", {
      body: photo.bytes,
      headers: { "Content-Type": photo.type },
      patience: PATIENCE_PHOTO_MS,
    });
    const refused = answer.status >= 400 && answer.status < 500 && answer.status !== 429;
    if (answer.status !== 201 && !refused) return answer.status === 0 ? answer : { ...answer, status: 503 };
    const media = (item.body["media"] ?? []) as Media[];
    // A photograph that nobody wants must not hold up the words beside it.
    if (!refused) item.body["media"] = [...media, { url: answer.body["url"], sha256: answer.body["sha256"] } as Media];
    item.photos = item.photos.slice(1);
    await save(item);
    changed();
  }
  return call(item.method, item.path, {
    body: JSON.stringify(item.body),
    headers: { "Content-Type": "application/json", "Idempotency-Key": item.key },
    token,
  });
}

/** Keep what became of an item, unless its writer took the photographs away meanwhile: that stands. */
async function save(item: Item): Promise<void> {
  if ((await one(item.key))?.photos.length === 0) item.photos = [];
  await put(item);
}

function problemOf(answer: Answer): Problem {
  const errors = (answer.body["errors"] ?? []) as { pointer: string; detail: string }[];
  const detail = errors[0] ? `${errors[0].pointer} ${errors[0].detail}` : answer.body["detail"];
  return { status: answer.status, code: String(answer.body["code"] ?? answer.status), detail: String(detail ?? "") };
}

/** Whether the same call may succeed later as it is. */
function mayPass(item: Item, answer: Answer): boolean {
  const { status, wait, body } = answer;
  if (status === 0 || status === 401 || status === 408 || status === 425 || status === 429 || status === 503) return true;
  // Also said while the server is still at the first try of this very item, so it is asked again a little later.
  if (status === 409 && body["code"] === "conflict") return item.tries < TRIES_OF_A_CONFLICT;
  if (status >= 500 || (status === 404 && wait > 0)) return item.tries < TRIES_OF_A_FAULT;
  return false;
}

async function settle(item: Item, answer: Record<string, unknown>): Promise<void> {
  if (item.kind === "register") {
    await keepValue("registered", { responder_id: answer["responder_id"], phone: item.body["phone"] });
  } else if (item.kind === "code" || (item.kind === "session" && answer["token"])) {
    await keepValue("session", answer);
  } else if (item.kind === "profile") {
    await keepValue("profile", answer);
  }
  if (item.kind === "report") delete item.body["reporter"];
  // Only what its owner wants to see again stays; a token and a number are not kept twice.
  const shown = item.kind === "report" || item.kind === "offer" || item.kind === "count" || item.kind === "received";
  if (!shown) return drop(item.key);
  await put({ ...item, state: "sent", problem: null, answer, settled: Date.now() });
}

async function refuse(item: Item, problem: Problem): Promise<void> {
  await put({ ...item, state: "refused", problem, settled: Date.now() });
  if (item.group === null || item.path.endsWith("/check-in")) return;
  // Whoever was not taken on does not set out, and does not arrive.
  for (const later of await items()) {
    if (later.state === "waiting" && later.group === item.group) await drop(later.key);
  }
}

/** Send a report without its photographs, which a bad line cannot carry. */
export async function withoutPhotos(item: Item): Promise<void> {
  await put({ ...item, photos: [] });
  current?.abort();
  changed();
}
