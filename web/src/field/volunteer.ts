// For those who help: join with a code, say when one is free, answer offers, follow the work to its end, count heads.

import { h, fill, type Child } from "../common/dom.ts";
import { language, t, when, type Catalogue, type Language } from "../common/i18n.ts";
import indonesian from "../../locales/volunteer.id.json";
import { call, session, type Session } from "./outbox.ts";
import { round } from "./place.ts";
import { sendable } from "./report.ts";
import { changed, drop, items, keepValue, post, value, type Item } from "./store.ts";
import { skills, skillWord } from "./skills.ts";

interface Work {
  offers: Offer[];
  assignments: Offer[];
  at: number;
}

interface Offer {
  offer_id?: string;
  assignment_id?: string;
  exercise: boolean;
  skill?: string;
  item?: string;
  quantity: number;
  severity: number;
  state: string;
  expires_at?: string;
  distance_km?: number;
  place?: string;
  lon?: number;
  lat?: number;
  window?: { start: string; end: string };
  period?: { start: string; end: string };
  release_asked_at?: string;
  release_reason?: string;
  heard_at?: string;
}

/** What follows from an action while the server has not heard of it. */
const BECOMES: Record<string, string> = {
  accept: "made", start: "started", arrive: "arrived", complete: "delivered", decline: "declined", abandon: "abandoned",
};
const NEXT: Record<string, string[]> = {
  offered: ["accept", "decline"],
  made: ["start", "abandon"],
  started: ["arrive", "check-in", "abandon"],
  arrived: ["complete", "check-in", "abandon"],
};
const OVER = new Set(["delivered", "confirmed", "abandoned", "declined"]);
const PARTS = ["people", "male", "female", "toddlers", "older", "disability", "pregnant", "households"] as const;
/** What a count by message calls each part. */
const WORDS = { people: "", male: "L", female: "P", toddlers: "balita", older: "lansia", disability: "difabel", pregnant: "hamil", households: "KK" };

/** The texts of this part. */
export async function words(wanted: Language = language()): Promise<Catalogue> {
  return wanted === "en" ? (await import("../../locales/volunteer.en.json")).default : indonesian;
}

/** Fetch offers, assignments and profile; null: nobody is signed in, false: the server does not answer. */
export async function refresh(): Promise<boolean | null> {
  const who = await session();
  if (who === null) return null;
  const begun = Date.now();
  const ask = (path: string) => call("GET", path, { token: who.token });
  const mine = `responder=${who.responder_id}`;
  const [offers, assignments] = await Promise.all([
    ask(`/v1/offers?${mine}&state=made&limit=20`),
    ask(`/v1/assignments?${mine}&limit=20`),
  ]);
  if (offers.status === 401) await keepValue("session", null);
  if (offers.status !== 200 || assignments.status !== 200) return offers.status === 401 ? true : false;
  const work: Work = {
    offers: offers.body["offers"] as Offer[],
    assignments: assignments.body["assignments"] as Offer[],
    at: begun,
  };
  await keepValue("work", work);
  if ((await value("profile")) === undefined) {
    const profile = await ask(`/v1/responders/${who.responder_id}`);
    if (profile.status === 200) await keepValue("profile", profile.body);
  }
  return true;
}

export async function show(view: HTMLElement): Promise<void> {
  const who = await session();
  const state = who ? "in" : await stage();
  if (view.dataset["stage"] !== `${state} ${language()}`) {
    view.dataset["stage"] = `${state} ${language()}`;
    fill(view, h("h1", { tabindex: -1 }, t("help.title")), ...frame(state, who));
  }
  if (who) await showWork(view);
}

/** How far somebody has come who is not signed in: `new`, `waiting` for the line, or `code` on its way. */
async function stage(): Promise<string> {
  const all = await items();
  const entry = all.find((item) => (item.kind === "register" || item.kind === "session" || item.kind === "code") && item.state === "waiting");
  if (entry) return entry.kind === "code" || entry.body["code"] ? "checking" : "waiting";
  return (await value("registered")) || (await value("known")) ? "code" : "new";
}

function frame(state: string, who: Session | null): Child[] {
  if (who) return signedIn();
  if (state === "waiting" || state === "checking") return [h("p", { role: "status" }, t(`help.${state}`))];
  if (state === "code") return [codeForm()];
  return [registration(), returning()];
}

// ---- joining

function field(id: string, label: string, attributes: Record<string, string | number | boolean> = {}): [HTMLElement, HTMLInputElement] {
  const input = h("input", { id, ...attributes });
  return [h("div", null, h("label", { for: id }, label), input), input];
}

function registration(): HTMLElement {
  const [nameRow, name] = field("my-name", t("name"), { maxlength: 200, autocomplete: "name", required: true });
  const [phoneRow, phone] = field("my-phone", t("phone"), { type: "tel", maxlength: 40, autocomplete: "tel", required: true });
  const [placeRow, place] = field("my-place", t("join.place"), { maxlength: 200 });
  const fault = h("p", { role: "alert", class: "fault" });
  const there = h("span", { role: "status" });
  let home: { lon: number; lat: number } | null = null;
  const locate = () =>
    navigator.geolocation?.getCurrentPosition(
      ({ coords }) => {
        home = { lon: round(coords.longitude), lat: round(coords.latitude) };
        there.textContent = t("where.gps.found", { m: Math.round(coords.accuracy) });
      },
      () => { there.textContent = t("where.gps.none"); },
      { timeout: 30_000, maximumAge: 600_000 },
    );
  const agreed = h("input", { type: "checkbox", id: "agreed" });
  const join = async (event: Event) => {
    event.preventDefault();
    const chosen = [...form.querySelectorAll<HTMLInputElement>("[name=skill]:checked")].map((box) => ({ skill: box.value }));
    const wrong = !name.value.trim() ? name : !/^[+\d][\d ()-]{7,}$/.test(phone.value.trim()) ? phone : !agreed.checked ? agreed : null;
    fault.textContent = wrong ? t(`fault.${wrong.id}`) : "";
    if (wrong) return wrong.focus();
    await post("register", "/v1/responders", {
      kind: "person",
      name: sendable(name.value).trim(),
      phone: phone.value.trim(),
      ...(home ? { location: { ...home, ...(place.value.trim() ? { place: sendable(place.value).trim() } : {}) } } : {}),
      skills: chosen,
      language: language(),
      consents: ["dispatch"],
      timezone: zone(),
    });
  };
  const form = h(
    "form",
    { id: "join", novalidate: true, onsubmit: (event: Event) => void join(event) },
    h("p", null, t("join.why")),
    nameRow,
    phoneRow,
    h("fieldset", null, h("legend", null, t("join.home")),
      h("div", { class: "row" }, h("button", { type: "button", onclick: locate }, t("where.gps")), there), placeRow),
    h("fieldset", null, h("legend", null, t("join.skills")), choices(false)),
    h("details", null, h("summary", null, t("join.trained")), choices(true)),
    h("label", { class: "agree" }, agreed, h("span", null, t("join.consent"))),
    fault,
    h("button", { class: "first big" }, t("join.send")),
  );
  return form;
}

function choices(trained: boolean): HTMLElement {
  const choice = (code: string, label: string) =>
    h("label", { class: "choice" }, h("input", { type: "checkbox", name: "skill", value: code }), h("span", null, label));
  return h("div", { class: "choices wide" }, skills(trained).map(({ code, label }) => choice(code, label)));
}

function zone(): string {
  const here = Intl.DateTimeFormat().resolvedOptions().timeZone;
  return /^Asia\/(Jakarta|Pontianak|Makassar|Jayapura)$/.test(here) ? here : "Asia/Jakarta";
}

function returning(): HTMLElement {
  const [row, phone] = field("back-phone", t("phone"), { type: "tel", maxlength: 40, autocomplete: "tel" });
  const enter = async (event: Event) => {
    event.preventDefault();
    if (!phone.value.trim()) return phone.focus();
    await keepValue("known", phone.value.trim());
    await post("session", "/v1/sessions", { phone: phone.value.trim() });
  };
  return h("form", { onsubmit: (event: Event) => void enter(event) }, h("h2", null, t("back.title")), row, h("button", null, t("back.send")));
}

function codeForm(): HTMLElement {
  const [row, code] = field("my-code", t("code.label"), { inputmode: "numeric", autocomplete: "one-time-code", maxlength: 10 });
  const fault = h("p", { role: "alert", class: "fault" });
  const confirm = async (event: Event) => {
    event.preventDefault();
    const digits = code.value.replace(/\D/g, "");
    fault.textContent = digits.length === 6 ? "" : t("fault.code");
    if (digits.length !== 6) return code.focus();
    const phone = await value<string>("known");
    const known = await value<{ responder_id: string }>("registered");
    if (known) await post("code", `/v1/responders/${known.responder_id}/confirm`, { code: digits });
    else await post("session", "/v1/sessions", { phone, code: digits });
  };
  const back = async () => {
    await keepValue("registered", undefined);
    await keepValue("known", undefined);
    changed();
  };
  return h(
    "form",
    { id: "confirm", onsubmit: (event: Event) => void confirm(event) },
    h("p", null, t("code.why")),
    row,
    fault,
    h("button", { class: "first big" }, t("code.send")),
    h("button", { type: "button", onclick: () => void back() }, t("code.back")),
  );
}

// ---- at work

function signedIn(): Child[] {
  return [h("div", { id: "free" }), h("div", { id: "work" }), counting(), h("button", { type: "button", id: "leave", onclick: () => void leave() }, t("leave"))];
}

async function leave(): Promise<void> {
  for (const name of ["session", "work", "profile", "registered", "known"]) await keepValue(name, undefined);
  changed();
}

async function showWork(view: HTMLElement): Promise<void> {
  const focused = document.activeElement?.getAttribute("data-focus");
  const all = await items();
  const work = (await value<Work>("work")) ?? { offers: [], assignments: [], at: 0 };
  const entries = new Map<string, [string, Offer]>();
  for (const offer of work.offers) entries.set(offer.offer_id ?? "", ["offered", offer]);
  for (const assignment of work.assignments) entries.set(assignment.assignment_id ?? "", [assignment.state, assignment]);
  const cards: HTMLElement[] = [];
  const now = Date.now();
  for (const [id, [state, offer]] of entries) {
    // What was sent after the list was asked for is not in it yet.
    const told = (item: Item) => item.state === "waiting" || (item.state === "sent" && (item.settled ?? 0) >= work.at);
    const said = all.filter((item) => item.group === id && told(item));
    const last = said.map(verb).filter((word) => word in BECOMES).pop();
    const stands = (last && BECOMES[last]) ?? state;
    const late = state === "offered" && !last && offer.expires_at !== undefined && Date.parse(offer.expires_at) <= now;
    if (late || (OVER.has(stands) && !said.length && Date.parse(offer.period?.end ?? offer.window?.end ?? "") < now)) continue;
    cards.push(card(id, stands, offer, said.filter((item) => item.state === "waiting")));
  }
  const open = cards.filter((element) => !element.classList.contains("over"));
  fill(
    view.querySelector("#work") as HTMLElement,
    h("h2", null, t("work.title")),
    h("p", { class: "quiet" }, work.at ? t("work.as-of", { time: when(work.at) }) : t("work.unknown")),
    open.length === 0 && work.at > 0 && h("p", null, t("work.none")),
    cards,
  );
  await showFree(view.querySelector("#free") as HTMLElement, all);
  if (focused) {
    const again = [...view.querySelectorAll<HTMLElement>("[data-focus]")].find((element) => element.dataset["focus"] === focused);
    // The button that was pressed is gone when its work is done: its card is where one was.
    (again ?? view.querySelector<HTMLElement>(`[data-card="${CSS.escape(focused.split(":")[1] ?? "")}"]`))?.focus();
  }
}

function verb(item: Item): string {
  return item.path.split("/").pop() ?? "";
}

function card(id: string, stands: string, offer: Offer, said: Item[]): HTMLElement {
  const act = (word: string) => async () => {
    // A second sign of life before the first is gone says no more.
    if (word === "check-in" && said.some((item) => verb(item) === word)) return;
    await post("offer", `/v1/offers/${id}/${word}`, {}, { signed: true, group: id });
  };
  const period = offer.window ?? offer.period;
  const what = offer.skill ? skillWord(offer.skill) : (offer.item ?? "");
  const sure = said.some((item) => verb(item) === "accept");
  return h(
    "article",
    { class: `card offer ${OVER.has(stands) ? "over" : ""}`, "data-card": id, "data-state": stands, tabindex: -1 },
    offer.exercise && h("p", { class: "exercise" }, t("exercise")),
    h("p", { class: "badge" }, t(`work.${stands}`), said.length > 0 && ` · ${t("state.waiting")}`),
    h("h3", null, what, offer.quantity > 1 && ` × ${offer.quantity}`),
    offer.severity === 4 && h("p", { class: "grave" }, t("urgency.4")),
    h("p", null,
      offer.place && h("span", { class: "words", dir: "auto" }, offer.place),
      offer.distance_km !== undefined && ` (${t("work.far", { km: Math.round(offer.distance_km) })})`,
      offer.lon !== undefined && [" ", h("a", { href: `geo:${offer.lat},${offer.lon}?q=${offer.lat},${offer.lon}` }, t("work.map"))]),
    period && h("p", null, `${when(period.start)} – ${when(period.end)}`),
    stands === "offered" && offer.expires_at && h("p", null, t("work.until", { time: when(offer.expires_at) })),
    offer.release_asked_at && !OVER.has(stands) && h("p", { class: "alert" }, t("work.release"), " ", h("span", { class: "words", dir: "auto" }, offer.release_reason ?? "")),
    sure && h("p", { class: "alert" }, t("work.unsure")),
    offer.heard_at && !OVER.has(stands) && stands !== "made" && h("p", { class: "quiet" }, t("work.heard", { time: when(offer.heard_at) })),
    h("div", { class: "row" }, (NEXT[stands] ?? []).map((word, place) =>
      h("button", { type: "button", class: place === 0 ? "first" : null, "data-focus": `${word}:${id}`, onclick: () => void act(word)() }, t(`do.${word}`)))),
  );
}

interface Barred {
  until?: string | null;
  [other: string]: unknown;
}

async function showFree(view: HTMLElement, all: Item[]): Promise<void> {
  const profile = await value<{ do_not_send?: Barred; status?: string }>("profile");
  const said = all.filter((item) => item.kind === "profile" && item.state === "waiting").pop();
  const barred = ((said?.body ?? profile)?.["do_not_send"] ?? {}) as Barred;
  const resting = barred.until != null && Date.parse(barred.until) > Date.now();
  const say = (hours: number) => async () => {
    const who = await session();
    if (who === null) return;
    for (const item of all) if (item.kind === "profile" && item.state === "waiting") await drop(item.key);
    const until = hours ? new Date(Date.now() + hours * 3_600_000).toISOString() : null;
    await post("profile", `/v1/responders/${who.responder_id}`, { do_not_send: { ...barred, until } }, { method: "PATCH", signed: true });
  };
  const button = (hours: number, label: string) => h("button", { type: "button", "data-focus": `free:${hours}`, onclick: () => void say(hours)() }, label);
  fill(
    view,
    h("p", { class: resting ? "free resting" : "free", role: "status" },
      h("b", null, resting ? t("free.resting", { time: when(barred.until as string) }) : t("free.ready")), said && ` · ${t("state.waiting")}`),
    h("div", { class: "row" }, resting ? button(0, t("free.back")) : [4, 12, 24].map((hours) => button(hours, t("free.rest", { n: hours })))),
  );
}

// ---- heads at a site

function counting(): HTMLElement {
  const [codeRow, code] = field("site", t("count.site"), { maxlength: 10, autocomplete: "off", autocapitalize: "characters", placeholder: "POS-XXXX" });
  const inputs = PARTS.map((name) => field(`count-${name}`, t(`count.${name}`), { inputmode: "numeric", maxlength: 7, size: 5 }));
  const fault = h("p", { role: "alert", class: "fault" });
  const done = h("p", { role: "status" });
  const send = async (event: Event) => {
    event.preventDefault();
    const numbers = inputs.map(([, input]) => input.value.trim());
    const place = code.value.trim().toUpperCase().replace(/^(POS)?[- ]?/, "POS-");
    const wrong = !/^POS-[0-9A-Z]{4}$/.test(place) ? code : inputs.find(([, input], n) => !(n === 0 ? /^\d+$/ : /^\d*$/).test(input.value.trim()))?.[1];
    fault.textContent = wrong ? t(wrong === code ? "fault.site" : "fault.number") : "";
    if (wrong) return wrong.focus();
    const text = [place, ...PARTS.map((name, n) => (numbers[n] ? `${WORDS[name]}${WORDS[name] ? " " : ""}${numbers[n]}` : "")).filter(Boolean)].join(" ");
    await post("count", "/v1/sites:headcount", { text, counted_at: new Date().toISOString(), channel: "app" }, { signed: true });
    form.reset();
    code.value = place;
    done.textContent = t("count.saved");
    changed();
  };
  const form = h("form", { id: "count", onsubmit: (event: Event) => void send(event) }, codeRow, h("div", { class: "numbers" }, inputs.map(([row]) => row)), fault, h("button", null, t("count.send")), done);
  return h("details", null, h("summary", null, t("count.title")), h("p", { class: "quiet" }, t("count.why")), form);
}
