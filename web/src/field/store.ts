// What this phone keeps: the outbox, and a few values (draft, session, what was last seen of one's offers). A write is
// done only when it is on the disk, so that an empty battery loses nothing that the page called saved.

export interface Photo {
  bytes: ArrayBuffer;
  type: string;
}

export interface Media {
  url: string;
  sha256: string;
}

export interface Problem {
  status: number;
  code: string;
  detail: string;
}

export type Kind = "report" | "received" | "register" | "code" | "session" | "profile" | "offer" | "count";

/** Something that is to reach the server exactly once. `key` is its Idempotency-Key. */
export interface Item {
  key: string;
  /** When it was written, milliseconds since 1970; also its place in the line. */
  at: number;
  kind: Kind;
  method: "POST" | "PATCH";
  path: string;
  body: Record<string, unknown>;
  photos: Photo[];
  /** Goes with the volunteer's token. */
  signed: boolean;
  /** Items of one group are sent in their order, and a refusal of one takes back those after it. */
  group: string | null;
  state: "waiting" | "sent" | "refused";
  tries: number;
  problem: Problem | null;
  /** The server's answer, for reports with the newest state of their ticket. */
  answer: Record<string, unknown> | null;
  settled: number | null;
  /** A refusal that was read and put away. */
  seen: boolean;
}

type Store = "outbox" | "values";

let opening: Promise<IDBDatabase> | undefined;
// Without a store (some private windows forbid it) everything lives as long as the page, and the page says so.
const memory: Record<Store, Map<string, unknown>> = { outbox: new Map(), values: new Map() };
export let lasting = true;

function open(): Promise<IDBDatabase> {
  return (opening ??= new Promise((resolve, reject) => {
    const request = indexedDB.open("gotong-field", 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("outbox", { keyPath: "key" });
      request.result.createObjectStore("values");
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  }));
}

async function run<T>(store: Store, writes: boolean, work: (store: IDBObjectStore) => IDBRequest): Promise<T> {
  const db = await open();
  return new Promise((resolve, reject) => {
    const transaction = db.transaction(store, writes ? "readwrite" : "readonly", { durability: "strict" });
    const request = work(transaction.objectStore(store));
    transaction.oncomplete = () => resolve(request.result as T);
    transaction.onabort = () => reject(transaction.error);
  });
}

/** Find out whether this browser keeps anything; to be awaited before the first use. */
export async function ready(): Promise<void> {
  try {
    await open();
  } catch {
    lasting = false;
  }
}

/** Every item, in the order in which they were written. */
export async function items(): Promise<Item[]> {
  const all = lasting
    ? await run<Item[]>("outbox", false, (store) => store.getAll())
    : ([...memory.outbox.values()] as Item[]);
  return all.sort((a, b) => a.at - b.at);
}

let told: () => void = () => undefined;
let posted: () => void = () => undefined;
// Tells every open page, and the worker's.
const channel = "BroadcastChannel" in globalThis ? new BroadcastChannel("gotong-field") : null;

/** Be told whenever something in the outbox changes, here or in another page or the worker. */
export function onChange(listen: () => void): void {
  told = listen;
  if (channel) channel.onmessage = listen;
}

/** Be told of each new item of this page: it is to be sent at once. */
export function onPost(send: () => void): void {
  posted = send;
}

export function changed(): void {
  told();
  channel?.postMessage(0);
}

export function newKey(): string {
  // randomUUID is missing where the page came over plain HTTP from another machine, as at a post without certificates.
  if (typeof crypto.randomUUID === "function") return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Put something into the outbox; when this returns, it is safe. */
export async function post(
  kind: Kind,
  path: string,
  body: Record<string, unknown>,
  more: Partial<Pick<Item, "method" | "photos" | "signed" | "group">> = {},
): Promise<void> {
  await put({ ...blank(), key: newKey(), kind, path, body, ...more });
  changed();
  posted();
}

export function blank(): Item {
  return {
    key: "", at: Date.now(), kind: "report", path: "", body: {}, method: "POST", photos: [], signed: false, group: null,
    state: "waiting", tries: 0, problem: null, answer: null, settled: null, seen: false,
  };
}

export async function one(key: string): Promise<Item | undefined> {
  return lasting ? run<Item | undefined>("outbox", false, (store) => store.get(key)) : (memory.outbox.get(key) as Item);
}

export async function put(item: Item): Promise<void> {
  if (lasting) await run("outbox", true, (store) => store.put(item));
  else memory.outbox.set(item.key, item);
}

export async function drop(key: string): Promise<void> {
  if (lasting) await run("outbox", true, (store) => store.delete(key));
  else memory.outbox.delete(key);
}

export async function value<T>(name: string): Promise<T | undefined> {
  return lasting ? run<T | undefined>("values", false, (store) => store.get(name)) : (memory.values.get(name) as T);
}

export async function keepValue(name: string, what: unknown): Promise<void> {
  if (lasting) await run("values", true, (store) => store.put(what, name));
  else memory.values.set(name, what);
}
