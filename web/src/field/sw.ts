// The service worker of /field: the page opens without a line, and the outbox goes out when the line comes back though
// no page is open. It touches nothing but the page and its built files.

import { flush } from "./outbox.ts";
import { ready } from "./store.ts";

declare const self: ServiceWorkerGlobalScope;

const CACHE = "gotong-field";
const PAGE = "/field";

/** Take in the page as it is now with all files that it names; the old one stays until every part of it is here. */
async function renew(): Promise<void> {
  const answer = await fetch(PAGE, { cache: "no-cache", credentials: "same-origin" });
  if (!answer.ok || !/html/.test(answer.headers.get("Content-Type") ?? "")) throw new Error("no page");
  const html = await answer.clone().text();
  const named = [...html.matchAll(/(?:src|href)="(\/[^":]+\.\w+)"/g)].map((match) => match[1] as string);
  const cache = await caches.open(CACHE);
  const known = await (await cache.match(PAGE))?.text();
  await addMissing(cache, named);
  await cache.put(PAGE, answer);
  if (known === undefined || known === html) return;
  for (const request of await cache.keys()) {
    const path = new URL(request.url).pathname;
    if (path !== PAGE && !named.includes(path)) await cache.delete(request);
  }
}

async function addMissing(cache: Cache, paths: string[]): Promise<void> {
  for (const path of new Set(paths)) if (!(await cache.match(path))) await cache.add(path);
}

self.addEventListener("install", (event) => {
  event.waitUntil(renew().then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  event.waitUntil(self.clients.claim());
});

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method !== "GET" || url.origin !== location.origin) return;
  if (event.request.mode === "navigate" && url.pathname === PAGE) {
    event.respondWith(
      caches.match(PAGE).then((kept) => {
        const fresh = renew().catch(() => undefined);
        event.waitUntil(fresh);
        return kept ?? fresh.then(async () => (await caches.match(PAGE)) ?? Response.error());
      }),
    );
  } else if (url.pathname.startsWith("/assets/")) {
    event.respondWith(
      caches.match(event.request).then(async (kept) => {
        if (kept) return kept;
        const answer = await fetch(event.request);
        if (answer.ok) await (await caches.open(CACHE)).put(event.request, answer.clone());
        return answer;
      }),
    );
  }
});

// The page names what it loaded before this worker had a hand in it.
self.addEventListener("message", (event) => {
  const paths = (event.data as { keep?: string[] }).keep;
  if (paths) event.waitUntil(caches.open(CACHE).then((cache) => addMissing(cache, paths)));
});

self.addEventListener("sync", (event) => {
  event.waitUntil(
    ready()
      .then(flush)
      .then((round) => {
        // Said by failing: the browser then tries again by itself, later and less often.
        if (round !== null && round.left > 0) throw new Error("something still waits");
      }),
  );
});

interface SyncEvent extends ExtendableEvent {
  tag: string;
}

declare global {
  interface ServiceWorkerGlobalScopeEventMap {
    sync: SyncEvent;
  }
}
