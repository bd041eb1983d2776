import "../common/style/tokens.css";
import "./leaflet.css"; // not with the map: a style that did not come is not asked for a second time
import "./board.css";
import { Refused } from "../common/api.ts";
import { fill, h } from "../common/dom.ts";
import { type Catalogue, chosen, keep, language, t, use, useZone } from "../common/i18n.ts";
import { keepFresh } from "../common/renew.ts";
import { keepToken, session, takeFromAddress } from "../common/session.ts";
import { Board } from "./board.ts";
import { explain } from "./actions.ts";
import { operations } from "./load.ts";
import { useLabels } from "./words.ts";

// One language is one file: the other is fetched only by whoever asks for it.
const CATALOGUES = {
  id: () => Promise.all([import("../../locales/common.id.json"), import("../../locales/board.id.json"), import("virtual:labels-id")]),
  en: () => Promise.all([import("../../locales/common.en.json"), import("../../locales/board.en.json"), import("virtual:labels-en")]),
};

const THEME = "gotong.theme";

/** Dark by default on the wall; what somebody chose goes before. */
function theme(next: boolean): void {
  const kept = localStorage.getItem(THEME) ?? new URLSearchParams(location.search).get("theme");
  const now = kept === "light" || kept === "dark" ? kept : innerWidth >= 1600 ? "dark" : null;
  const shown = now ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const wanted = next ? (shown === "dark" ? "light" : "dark") : now;
  if (wanted !== null) document.documentElement.dataset["theme"] = wanted;
  if (next && wanted !== null) localStorage.setItem(THEME, wanted);
}

async function start(): Promise<void> {
  takeFromAddress();
  theme(false);
  const [common, board, labels] = await CATALOGUES[chosen()]();
  use(chosen(), common.default as Catalogue, board.default as Catalogue);
  useLabels(labels.default);
  document.title = t("board.title");
  const app = document.getElementById("app") ?? document.body;
  const who = session();
  if (who === null || who.role === "responder") {
    fill(app, welcome(who !== null));
    return;
  }
  fill(app, h("p", { class: "loading", role: "status" }, t("loading")));
  try {
    const found = await operations();
    const query = new URLSearchParams(location.search);
    const asked = query.get("operation");
    const mine = found.filter(({ id }) => who.operations.length === 0 || who.operations.includes(id));
    // The operation that is asked for, else the only one that is going on beside the standing one.
    const going = mine.filter(({ id }) => id !== "standing");
    const operation = mine.find(({ id }) => id === asked) ?? (asked === null && going.length === 1 ? going[0] : undefined); // prettier-ignore
    useZone(operation?.timezone ?? "Asia/Jakarta");
    keepFresh(() => location.assign("/login?next=/"));
    const view = new Board(app, mine, operation ?? null, {
      language: () => {
        keep(language() === "id" ? "en" : "id");
        const next = new URL(location.href);
        next.searchParams.delete("lang");
        location.assign(next);
      },
      theme: () => theme(true),
      leave: () => {
        keepToken(null);
        location.assign("/login");
      },
    });
    await view.start();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    fill(
      app,
      h(
        "main",
        { class: "welcome" },
        h("h1", null, t("board.title")),
        h("p", { role: "alert" }, explain(error)),
        h("button", { type: "button", class: "first", onclick: () => location.reload() }, t("retry")),
        h("a", { href: "/login?next=/" }, t("login")),
      ),
    );
    if (error.passing) setTimeout(() => location.reload(), 5_000);
  }
}

function welcome(responder: boolean): HTMLElement {
  return h(
    "main",
    { class: "welcome" },
    h("h1", null, t("board.title")),
    h("p", null, t(responder ? "welcome.responder" : "welcome.says")),
    h(
      "nav",
      null,
      h("a", { class: "button", href: "/login?next=/" }, t("login")),
      h("a", { class: "button", href: "/public" }, t("welcome.public")),
      h("a", { class: "button", href: "/field" }, t("welcome.field")),
    ),
  );
}

void start();
