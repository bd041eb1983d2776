// One's own reports: what still waits on this phone, and what became of what was sent.

import { h, fill, type Child } from "../common/dom.ts";
import { language, t, when, type Catalogue, type Language } from "../common/i18n.ts";
import indonesian from "../../locales/mine.id.json";
import { call, withoutPhotos } from "./outbox.ts";
import { blank, changed, drop, items, one, post, put, type Item } from "./store.ts";
import { refusal } from "./words.ts";

interface Told {
  ticket: string;
  status: string;
  needs_place: boolean;
  history: { time: string; status: string; text_id: string; text_en: string }[];
  incident?: { title: string };
}

const MOST_ASKED = 10;

/** The texts of this part. */
export async function words(wanted: Language = language()): Promise<Catalogue> {
  return wanted === "en" ? (await import("../../locales/mine.en.json")).default : indonesian;
}

/** Ask what became of the newest reports; false when the server does not answer. */
export async function refresh(): Promise<boolean> {
  const open = (await items()).filter((item) => ticketOf(item) && told(item)?.status !== "resolved");
  for (const item of open.slice(-MOST_ASKED)) {
    const answer = await call("GET", `/v1/tickets/${encodeURIComponent(ticketOf(item) ?? "")}`);
    if (answer.status === 0 || answer.status >= 500) return false;
    const now = await one(item.key);
    if (answer.status === 200 && now) await put({ ...now, answer: { ...now.answer, told: answer.body } });
    if (answer.status === 404 && now?.path === "") await drop(item.key);
  }
  return true;
}

function ticketOf(item: Item): string | null {
  const ticket = item.kind === "report" ? item.answer?.["ticket"] : null;
  return typeof ticket === "string" ? ticket : null;
}

function told(item: Item): Told | undefined {
  return item.answer?.["told"] as Told | undefined;
}

/** Draw the view. `mend` lets the writer mend a refused report. */
export async function show(view: HTMLElement, mend: (item: Item) => void): Promise<void> {
  const all = await items();
  const reports = all.filter((item) => item.kind === "report").reverse();
  const answers = all.filter((item) => item.kind === "received");
  const code = h("input", { id: "code", maxlength: 20, autocomplete: "off", autocapitalize: "characters" });
  const look = async (event: Event) => {
    event.preventDefault();
    const ticket = code.value.trim();
    if (!ticket) return code.focus();
    const key = `ticket:${ticket.toUpperCase()}`;
    await put({ ...blank(), key, state: "sent", answer: { ticket }, settled: Date.now() });
    code.value = "";
    await refresh();
    changed();
  };
  // What is being typed stays as it is while the view is drawn anew.
  const typed = view.querySelector<HTMLInputElement>("#code");
  if (typed) code.value = typed.value;
  const focused = document.activeElement?.getAttribute("data-focus") ?? document.activeElement?.id;
  fill(
    view,
    h("h1", { tabindex: -1 }, t("mine.title")),
    reports.length === 0 && h("p", { class: "quiet" }, t("mine.none")),
    reports.map((item) => card(item, answers, mend)),
    h("form", { onsubmit: look, class: "row" }, h("label", { for: "code" }, t("mine.ticket")), code, h("button", null, t("mine.look"))),
  );
  if (focused) {
    const again = [...view.querySelectorAll<HTMLElement>("[data-focus],#code")];
    again.find((element) => element.dataset["focus"] === focused || element.id === focused)?.focus();
  }
}

function card(item: Item, answers: Item[], mend: (item: Item) => void): HTMLElement {
  const ticket = ticketOf(item);
  const parts: Child[] = [];
  if (item.state === "waiting") {
    parts.push(h("p", null, t(item.tries > 0 ? "mine.tried" : "mine.safe", { n: item.tries })));
    if (item.photos.length > 0) {
      parts.push(action(item, "bare", t("mine.bare"), () => withoutPhotos(item)));
    }
  } else if (item.state === "refused") {
    parts.push(
      h("p", null, refusal(item)),
      action(item, "mend", t("mine.mend"), async () => {
        await drop(item.key);
        mend(item);
      }),
      action(item, "discard", t("mine.discard"), async () => {
        await drop(item.key);
        changed();
      }),
    );
  } else if (ticket !== null) {
    parts.push(h("p", null, t("mine.your"), " ", h("b", { class: "ticket" }, ticket)), ...fate(item, ticket, answers));
  }
  const body = item.body as Record<string, string>;
  const words = body["text"] ?? (body["hazard"] ? t(`hazard.${body["hazard"]}`) : item.path ? t("mine.photo") : "");
  return h(
    "article",
    { class: `card ${item.state}`, "data-key": item.key },
    h("p", { class: "badge" }, t(`state.${item.state}`), " · ", when(item.state === "sent" ? (item.settled ?? item.at) : item.at)),
    words && h("p", { class: "words", dir: "auto" }, words.length > 300 ? `${words.slice(0, 300)}…` : words),
    parts as Child[],
  );
}

function fate(item: Item, ticket: string, answers: Item[]): Child[] {
  const known = told(item);
  if (known === undefined) return [h("p", { class: "quiet" }, t("mine.unknown"))];
  const parts: Child[] = [
    h("ol", null, known.history.map((step) => h("li", null, language() === "en" ? step.text_en : step.text_id, " ", h("small", null, when(step.time))))),
    known.incident && h("p", { class: "quiet" }, t("mine.incident"), " ", h("span", { class: "words", dir: "auto" }, known.incident.title)),
    known.needs_place && h("p", null, t("mine.place")),
  ];
  const mine = answers.filter((answer) => answer.path.includes(`/${encodeURIComponent(ticket)}/`)).pop();
  if (mine && mine.state !== "refused") {
    parts.push(h("p", { role: "status" }, t(`received.${mine.body["received"]}`), " ", t(`state.${mine.state}`)));
  }
  if ((known.status === "acting" || known.status === "resolved") && mine?.state !== "waiting") {
    const say = (received: string) => async () => {
      await post("received", `/v1/tickets/${encodeURIComponent(ticket)}/confirm`, { received });
    };
    parts.push(
      h("p", null, t("received.ask")),
      h("div", { class: "row" }, action(item, "yes", t("received.yes"), say("yes")), action(item, "no", t("received.no"), say("no"))),
    );
  }
  return parts;
}

function action(item: Item, name: string, label: string, act: () => Promise<void>): HTMLElement {
  return h("button", { type: "button", "data-focus": `${name}:${item.key}`, onclick: () => void act() }, label);
}
