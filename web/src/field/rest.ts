// All that follows the form: place and photographs, the views, sending the outbox, and how things stand.

import { h, fill } from "../common/dom.ts";
import { keep, known, language, t, use, type Catalogue } from "../common/i18n.ts";
import indonesian from "../../locales/outbox.id.json";
import { call, flush } from "./outbox.ts";
import { Place } from "./place.ts";
import type { ReportForm } from "./report.ts";
import { changed, items, keepValue, lasting, onChange, onPost, put, value, type Item } from "./store.ts";
import { refusal } from "./words.ts";

const PAUSES_S = [4, 8, 15, 30, 60];
const REFRESH_MS = 30_000;
const MOST_PHOTOS = 3;

interface Operation {
  id: string;
  title: string;
  exercise: boolean;
}

const find = <T extends HTMLElement = HTMLElement>(id: string) => document.getElementById(id) as T;

let form: ReportForm;
let texts: Catalogue[] = [];
let view = "report";

/** Put everything else to work; what comes back is called after each report that was kept. */
export async function start(report: ReportForm, spoken: Catalogue): Promise<() => void> {
  form = report;
  let outbox: Catalogue = indonesian;
  if (language() === "en") outbox = (await import("../../locales/outbox.en.json")).default;
  use(language(), ...(texts = [spoken, outbox]));
  const place = new Place(form.form, () => form.keepDraft());
  place.value = form.where.value;
  form.where = place;
  photographs();
  otherLanguage();
  onChange(draw);
  onPost(() => void pump(true));
  addEventListener("hashchange", () => void open());
  // A moment of chance: a whole town comes back at once.
  addEventListener("online", () => setTimeout(() => void pump(true), Math.random() * 500));
  addEventListener("offline", draw);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) void pump(true).then(refresh);
  });
  setInterval(() => void refresh(), REFRESH_MS);
  find("offline").addEventListener("click", () => void prepare());
  for (const id of ["gps", "map-open", "photo", "offline"]) find<HTMLButtonElement>(id).disabled = false;
  await open();
  document.documentElement.dataset["ready"] = "all";
  void pump().then(settings).then(serve);
  return () => {
    location.hash = "#mine";
  };
}

/** A part of the page that is loaded when it is wanted, with its texts. */
async function part<T extends { words(): Promise<Catalogue> }>(loading: Promise<T>): Promise<T> {
  const found = await loading;
  const own = await found.words();
  if (!texts.includes(own)) use(language(), ...(texts = [...texts, own]));
  return found;
}

const mine = () => part(import("./mine.ts"));
const photo = () => import("./photo.ts");
const volunteering = () => part(import("./volunteer.ts"));

function otherLanguage(): void {
  const other = language() === "id" ? "en" : "id";
  const button = find("language");
  button.lang = other;
  button.textContent = other === "en" ? "English" : "Bahasa Indonesia";
  button.onclick = () => {
    keep(other);
    const address = new URL(location.href);
    address.searchParams.delete("lang");
    history.replaceState(null, "", address);
    location.reload();
  };
}

// Photographs

function photographs(): void {
  const input = find<HTMLInputElement>("photo");
  const shrunk = find("shrunk");
  const remove = () => {
    form.photos = [];
    show();
    input.focus();
  };
  const show = (form.photosChanged = () => {
    const size = form.photos.reduce((sum, photo) => sum + photo.bytes.byteLength, 0);
    fill(
      shrunk,
      size > 0 && [
        t("photo.ready", { n: form.photos.length, kb: Math.ceil(size / 1000) }),
        h("button", { type: "button", onclick: remove }, t("photo.remove")),
      ],
    );
  });
  input.addEventListener("change", async () => {
    shrunk.textContent = t("photo.working");
    try {
      const { shrink } = await photo();
      for (const file of [...(input.files ?? [])].slice(0, MOST_PHOTOS - form.photos.length)) {
        form.photos.push(await shrink(file));
      }
      show();
    } catch {
      shrunk.textContent = t("photo.unreadable");
    }
    input.value = "";
  });
}

// Views

async function open(): Promise<void> {
  const asked = location.hash.slice(1);
  const before = view;
  view = asked === "mine" || asked === "help" ? asked : "report";
  for (const section of document.querySelectorAll<HTMLElement>("main > section")) section.hidden = section.id !== view;
  for (const link of document.querySelectorAll("#views a")) {
    if (link.getAttribute("href") === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  await redraw();
  if (view !== before) {
    scrollTo(0, 0);
    find(view).querySelector<HTMLElement>("h1")?.focus();
  }
  void refresh();
}

let drawing: Promise<void> | null = null;
let again = false;

/** Draw once more; what comes while it is being drawn is drawn after it. */
function draw(): void {
  again = drawing !== null;
  drawing ??= redraw().finally(() => {
    drawing = null;
    if (again) draw();
  });
}

async function redraw(): Promise<void> {
  await status();
  if (view === "report") return;
  try {
    if (view === "mine") await (await mine()).show(find("mine"), mend);
    else await (await volunteering()).show(find("help"));
  } catch (error) {
    // Only a part that could not be loaded is no fault of ours.
    if (!(error instanceof TypeError)) throw error;
    if (find(view).firstChild === null) fill(find(view), h("p", null, t("view.missing")));
  }
}

function mend(item: Item): void {
  location.hash = "#report";
  form.again(item);
}

// How things stand

let reached: boolean | null = null;

async function status(): Promise<void> {
  const all = await items();
  const waiting = all.filter((item) => item.state === "waiting").length;
  const badge = find("waiting");
  badge.hidden = waiting === 0;
  badge.textContent = String(waiting);
  const line = find("line");
  const off = !navigator.onLine || reached === false;
  line.className = off ? "off" : "";
  const key = !navigator.onLine ? "line.off" : off ? "line.server" : waiting > 0 ? "line.sending" : "line.on";
  const said = t(key) + (waiting > 0 ? ` ${t(lasting ? "line.waiting" : "line.unsafe", { n: waiting })}` : "");
  if (line.dataset["said"] !== said) {
    line.dataset["said"] = said;
    fill(line, said, off && waiting > 0 && h("button", { type: "button", onclick: () => void pump(true) }, t("line.now")));
  }
  const refused = all.filter((item) => item.state === "refused" && !item.seen && item.kind !== "report");
  // Its words are in the part for volunteers, from where most of these come.
  if (refused.length > 0) await volunteering().catch(() => null);
  fill(
    find("alerts"),
    refused.map((item) =>
      h("p", { class: "alert", "data-key": item.key }, refusal(item), " ",
        h("button", { type: "button", onclick: () => void put({ ...item, seen: true }).then(changed) }, t("alert.seen"))),
    ),
  );
}

// Sending

let failures = 0;
let timer = 0;

/** Send what waits, and come back when something is left: soon, then ever less often. */
async function pump(now = false): Promise<void> {
  clearTimeout(timer);
  if (now) failures = 0;
  const round = await flush();
  if (round !== null && round.reached !== null) {
    failures = round.reached ? 0 : failures + 1;
    reached = round.reached;
  }
  const left = round === null ? (await items()).filter((item) => item.state === "waiting").length : round.left;
  if (left > 0) {
    const pause = round === null ? 3 : round.wait || (PAUSES_S[Math.min(failures, PAUSES_S.length - 1)] as number);
    // Not all phones of a town at once when its mast comes back.
    timer = window.setTimeout(() => void pump(), pause * 1000 * (1 + Math.random() / 2));
    void askForSync();
  }
  draw();
  if (round?.sent) void refresh();
}

/** Have the browser wake the worker when the line comes back, also with no page open. */
async function askForSync(): Promise<void> {
  try {
    const worker = (await navigator.serviceWorker.getRegistration("/field")) as
      | (ServiceWorkerRegistration & { sync?: { register(tag: string): Promise<void> } })
      | undefined;
    await worker?.sync?.register("outbox");
  } catch {
    // this browser sends only while the page is open
  }
}

/** Ask for what is new in the view that is open. */
async function refresh(): Promise<void> {
  if (document.hidden || !navigator.onLine || view === "report") return;
  const shown = await (view === "mine" ? mine() : volunteering()).catch(() => null);
  const answered = await shown?.refresh();
  if (answered != null) reached = answered;
  draw();
}

// Settings

async function settings(): Promise<void> {
  const asked = new URLSearchParams(location.search).get("operation");
  let operation = (await value<Operation | null>("operation")) ?? null;
  if (asked !== null) operation = asked === operation?.id ? operation : asked ? { id: asked, title: asked, exercise: false } : null;
  const tell = async () => {
    form.operation = operation?.id ?? null;
    const band = find("exercise");
    band.hidden = operation === null;
    band.className = operation?.exercise ? "exercise" : "operation";
    fill(band, operation?.exercise && `${t("exercise")} · `, operation?.title, " ", h("a", { href: "/field?operation=" }, t("operation.leave")));
    await keepValue("operation", operation);
  };
  await tell();
  numbers(await value<Told[]>("numbers"));
  const told = await call("GET", "/v1/page-settings");
  if (told.status === 200) {
    const found = told.body["emergency"] as Told[];
    numbers(found);
    await keepValue("numbers", found);
  }
  if (operation === null) return;
  const answer = await call("GET", `/v1/operations/${encodeURIComponent(operation.id)}`);
  if (answer.status === 404) operation = null;
  else if (answer.status === 200) operation = { id: operation.id, title: String(answer.body["title"]), exercise: answer.body["exercise"] === true };
  await tell();
}

interface Told {
  number: string;
  name: string | null;
}

/** Show this region's emergency numbers in place of the country's. */
function numbers(told: Told[] | undefined): void {
  if (!told?.length) return;
  fill(
    find("numbers"),
    told.map(({ number, name }) =>
      h("a", { href: `tel:${number.replace(/[^+\d]/g, "")}` }, h("b", null, number), " ", h("span", null, name ?? (known(`number.${number}`) ? t(`number.${number}`) : ""))),
    ),
  );
}

/** Have everything on this phone: the page, the other language, place names, the map. */
async function prepare(): Promise<void> {
  const said = find("prepared");
  said.textContent = t("offline.loading");
  try {
    await Promise.all([
      volunteering().then((found) => found.words("en")),
      photo(),
      mine().then((found) => found.words("en")),
      import("../../locales/field.en.json"),
      import("../../locales/outbox.en.json"),
      import("./map.ts"),
    ]);
    await serve();
    await navigator.storage.persist();
    said.textContent = t("offline.done");
  } catch {
    said.textContent = t("offline.failed");
  }
}

/** Start the worker, and name to it what was loaded before it had a hand in it. */
async function serve(): Promise<void> {
  // What comes after sending has to be here before the line goes.
  await Promise.all([mine(), photo()]);
  if ((await value("session")) || (await value("registered"))) await volunteering();
  if (!("serviceWorker" in navigator)) return;
  await navigator.serviceWorker.register("/field-sw.js", { scope: "/field" });
  const worker = (await navigator.serviceWorker.ready).active;
  const paths = performance
    .getEntriesByType("resource")
    .map((entry) => new URL(entry.name))
    .filter((url) => url.origin === location.origin && url.pathname.startsWith("/assets/"))
    .map((url) => url.pathname);
  worker?.postMessage({ keep: paths });
  document.documentElement.dataset["ready"] = "offline";
}
