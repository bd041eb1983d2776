// Forms to print: one report, and a list of what people offer. Whoever types them in afterwards finds the same words in
// the same order on the field page.

import "../common/style/tokens.css";
import "./paper.css";
import hazards from "virtual:hazards";
import common from "../../locales/common.id.json";
import texts from "../../locales/paper.id.json";
import { fill, h } from "../common/dom.ts";
import { chosen, keep, language, t, use } from "../common/i18n.ts";
import { severityMark, severityWord } from "../common/severity.ts";

const HAZARDS = [
  "flood", "flash_flood", "landslide", "earthquake", "tsunami", "volcano", "fire", "wildfire", "wind", "drought",
  "epidemic", "building_collapse",
];
const PEOPLE = ["affected", "displaced", "injured", "dead", "missing"];
const VULNERABLE = ["babies", "pregnant", "old", "disabled", "sick"];
const OFFERS = 14;

async function start(): Promise<void> {
  if (chosen() === "en") {
    const [one, two] = await Promise.all([import("../../locales/common.en.json"), import("../../locales/paper.en.json")]);
    use("en", one.default, two.default);
  } else use("id", common, texts);
  keep(language());
  document.title = `${t("paper.title")} · Gotong`;
  const other = language() === "id" ? "en" : "id";
  fill(
    document.querySelector("#app") as Element,
    h("header", { class: "screen" },
      h("h1", null, t("paper.title")),
      h("p", null, t("paper.lead")),
      h("p", { class: "row" },
        h("button", { class: "first", type: "button", onclick: () => print() }, t("paper.print")),
        h("a", { class: "button", href: `?lang=${other}`, lang: other, hreflang: other }, other === "en" ? "English" : "Bahasa Indonesia"),
        h("a", { href: "/field" }, t("paper.to.field")),
        h("a", { href: "/public" }, t("paper.to.public")))),
    h("main", null, reportForm(), offerList()),
  );
}

function reportForm(): HTMLElement {
  return h(
    "section",
    { class: "sheet", "aria-labelledby": "report" },
    h("h2", { id: "report" }, t("paper.report")),
    h("p", { class: "danger" }, t("paper.danger")),
    h("div", { class: "fields" }, line("paper.when", "wide"), line("paper.observer", "wide"), line("paper.place", "wide"), line("paper.area", "wide"), line("paper.position", "wide")),
    h("h3", null, t("paper.hazard")),
    h("ul", { class: "boxes" }, ...HAZARDS.map((code) => box(hazards[code]?.[language() === "id" ? 0 : 1] ?? code)), box(t("paper.other"), true)),
    h("h3", null, t("paper.severity")),
    h("ul", { class: "boxes four" }, ...[4, 3, 2, 1].map((severity) =>
      h("li", null, square(), severityMark(severity), severityWord(severity)))),
    h("h3", null, t("paper.what")),
    h("div", { class: "lines" }, ...Array.from({ length: 5 }, () => h("div"))),
    h("h3", null, t("paper.people")),
    h("div", { class: "counts" }, ...PEOPLE.map((name) => line(`paper.people.${name}`))),
    h("ul", { class: "boxes" }, ...VULNERABLE.map((name) => box(t(`paper.vulnerable.${name}`)))),
    h("h3", null, t("paper.needs")),
    table(["paper.need.what", "paper.need.quantity", "paper.need.unit", "paper.need.by"], 4),
    h("h3", null, t("paper.reporter")),
    h("div", { class: "fields" }, line("paper.name"), line("paper.phone")),
    h("p", { class: "small" }, t("paper.consent")),
    h("div", { class: "desk" }, h("strong", null, t("paper.desk")), line("paper.ticket"), line("paper.entered")),
  );
}

function offerList(): HTMLElement {
  return h(
    "section",
    { class: "sheet", "aria-labelledby": "offers" },
    h("h2", { id: "offers" }, t("paper.offers")),
    h("p", null, t("paper.offers.lead")),
    h("div", { class: "fields" }, line("paper.post"), line("paper.day"), line("paper.clerk")),
    table(
      ["paper.offer.who", "paper.phone", "paper.offer.what", "paper.need.quantity", "paper.offer.where", "paper.offer.when", "paper.offer.signature", "paper.offer.entered"],
      OFFERS,
      "offers",
    ),
    h("p", { class: "small" }, t("paper.offers.consent")),
  );
}

/** A label with room to write on. */
function line(key: string, more = ""): HTMLElement {
  return h("div", { class: `line ${more}` }, h("span", null, t(key)), h("i"));
}

function box(label: string, open = false): HTMLElement {
  return h("li", null, square(), label, open && h("i", { class: "open" }));
}

function square(): HTMLElement {
  return h("span", { class: "square", "aria-hidden": "true" });
}

function table(heads: string[], rows: number, name = ""): HTMLElement {
  return h(
    "table",
    { class: name },
    h("thead", null, h("tr", null, h("th", { scope: "col", class: "number" }, t("paper.number")), ...heads.map((key) => h("th", { scope: "col" }, t(key))))),
    h("tbody", null, ...Array.from({ length: rows }, (_, n) =>
      h("tr", null, h("th", { scope: "row" }, n + 1), ...heads.map(() => h("td"))))),
  );
}

void start();
