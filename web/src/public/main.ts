// The public page: warnings, what has happened, the figures, how to help. For everybody, coarse on purpose.

import "../common/style/tokens.css";
import "./public.css";
import areas from "virtual:area-names";
import hazards from "virtual:hazards";
import units from "virtual:units";
import common from "../../locales/common.id.json";
import texts from "../../locales/public.id.json";
import { fill, h, text } from "../common/dom.ts";
import { ago, chosen, clockTime, keep, language, number, t, use, useZone, when } from "../common/i18n.ts";
import { severityMark, severityWord } from "../common/severity.ts";
import { band, choices, everything, missing, textOf, type Everything, type Incident, type Warning } from "./data.ts";

const EVERY_MS = 60_000;
const AGAIN_MS = 10_000;
const PEOPLE = ["dead", "missing", "injured", "displaced", "affected"];

const operation = new URLSearchParams(location.search).get("operation");
const state = h("p", { class: "state", role: "status" });
const exercise = h("p", { class: "exercise", hidden: true });
const chooser = h("div", { class: "chooser" });
const warnings = h("section", { "aria-labelledby": "warnings" });
const report = h("section", { "aria-labelledby": "report" });
const incidents = h("section", { "aria-labelledby": "incidents" });
const help = h("section", { "aria-labelledby": "help" });
const numbers = h("nav", { class: "numbers" });

let shown = "";
let had: Everything | null = null;
let hadAt = 0;

async function start(): Promise<void> {
  if (chosen() === "en") {
    const [one, two] = await Promise.all([import("../../locales/common.en.json"), import("../../locales/public.en.json")]);
    use("en", one.default, two.default);
  } else use("id", common, texts);
  keep(language());
  document.title = `${t("public.title")} · Gotong`;
  numbers.setAttribute("aria-label", t("public.numbers"));
  document.body.prepend(exercise);
  fill(document.querySelector("#app") as Element, header(), h("main", null, state, warnings, report, incidents, help), footer());
  drawHelp();
  void emergency();
  await look();
}

function header(): HTMLElement {
  const other = language() === "id" ? "en" : "id";
  const address = new URL(location.href);
  address.searchParams.set("lang", other);
  return h(
    "header",
    null,
    h("div", { class: "top" },
      h("h1", null, t("public.title")),
      h("a", { href: address.pathname + address.search, lang: other, hreflang: other, class: "button screen" }, other === "en" ? "English" : "Bahasa Indonesia")),
    numbers,
    chooser,
  );
}

function footer(): HTMLElement {
  return h("footer", null, h("p", null, t("public.coarse")), h("p", null, t("public.source")));
}

async function emergency(): Promise<void> {
  let told = ["112", "115", "119"].map((value) => ({ number: value, name: null as string | null }));
  try {
    told = ((await (await fetch("/v1/page-settings", { credentials: "omit" })).json()) as { emergency: typeof told }).emergency;
  } catch {
    // the country's own numbers hold everywhere
  }
  fill(numbers, ...told.map((one) =>
    h("a", { href: `tel:${one.number.replace(/[^+\d]/g, "")}` },
      h("b", null, one.number), " ", one.name ?? (["112", "115", "119"].includes(one.number) ? t(`public.number.${one.number}`) : ""))));
}

async function look(): Promise<void> {
  let wait = EVERY_MS;
  try {
    had = await everything(operation, language());
    hadAt = Date.now();
  } catch {
    wait = AGAIN_MS;
  }
  draw(wait === AGAIN_MS);
  setTimeout(() => void look(), wait * (0.9 + Math.random() / 5));
}

function draw(stale: boolean): void {
  if (had === null) {
    text(state, t(stale ? "public.none" : "public.loading"));
    state.classList.toggle("stale", stale);
    return;
  }
  useZone(had.report?.timezone ?? "Asia/Jakarta");
  text(state, t(stale ? "public.stale" : "public.fresh", { time: clockTime(hadAt) }));
  state.classList.toggle("stale", stale);
  // Drawn only when something is new, so that neither focus nor a reader's place is lost.
  const now = JSON.stringify(had);
  if (now === shown) return;
  shown = now;
  const drill = had.operations.some((one) => one.id === operation && one.exercise) || had.report?.exercise === true;
  exercise.hidden = !drill;
  text(exercise, drill ? t("exercise") : "");
  document.documentElement.toggleAttribute("data-exercise", drill);
  drawChooser(had);
  drawWarnings(had.warnings);
  drawReport(had);
  drawIncidents(had.incidents, had.more);
  drawHelp(had);
}

function drawChooser(all: Everything): void {
  const open = choices(all.operations);
  if (open.length === 0 && operation === null) return fill(chooser);
  const select = h(
    "select",
    { id: "operation", onchange: () => go(select.value) },
    h("option", { value: "" }, t("public.all")),
    ...open.map((one) => h("option", { value: one.id, selected: one.id === operation }, one.title)),
  );
  fill(chooser, h("label", { for: "operation" }, t("public.operation")), select);
}

function go(chosenOperation: string): void {
  const address = new URL(location.href);
  if (chosenOperation === "") address.searchParams.delete("operation");
  else address.searchParams.set("operation", chosenOperation);
  location.assign(address.pathname + address.search);
}

function drawWarnings(found: Warning[]): void {
  fill(
    warnings,
    h("h2", { id: "warnings" }, t("public.warnings")),
    found.length === 0 ? h("p", null, t("public.warnings.none")) : h("ul", { class: "cards" }, ...found.map(warningCard)),
  );
}

function warningCard(warning: Warning): HTMLElement {
  const said = textOf(warning, language());
  return h(
    "li",
    { class: "card warning" },
    h("h3", { class: "words" }, said?.headline ?? said?.event ?? hazard(warning.hazard)),
    h("p", { class: "line" }, severityMark(warning.severity), severityWord(warning.severity), " · ",
      h("span", null, t("public.until", { time: when(warning.expires_at) }))),
    warning.area.description && h("p", { class: "words" }, warning.area.description),
    said?.description && h("p", { class: "words" }, said.description),
    said?.instruction && h("p", { class: "words strong" }, said.instruction),
    h("p", { class: "quiet" }, t("public.warnings.from", { sender: warning.sender_name ?? "?" }), " ",
      h("a", { href: warning.cap }, "CAP")),
  );
}

function drawReport(all: Everything): void {
  const found = all.report;
  const of = operation === null ? "" : `&operation=${encodeURIComponent(operation)}`;
  const path = (format: string) => `/v1/sitreps?format=${format}&lang=${language()}${of}`;
  fill(
    report,
    h("h2", { id: "report" }, t("public.report")),
    found === null
      ? h("p", null, t("public.report.none"))
      : h("dl", { class: "figures" },
          ...[
            ["public.figure.reports", found.totals.reports],
            ["public.figure.incidents", found.totals.incidents_open],
            ...PEOPLE.map((name) => [`public.people.${name}`, found.totals.people[name] ?? "0"]),
          ].map(([key, value]) => h("div", null, h("dt", null, t(key as string)), h("dd", null, band(value as string, number))))),
    found !== null && h("p", { class: "quiet" }, t("public.report.as_of", { time: when(found.as_of) })),
    h("p", { class: "links screen" },
      h("a", { href: path("html"), class: "button" }, t("public.report.whole")), " ",
      h("a", { href: path("md") }, t("public.report.text")), " ",
      h("a", { href: path("csv") }, t("public.report.table"))),
  );
}

function drawIncidents(found: Incident[], more: boolean): void {
  fill(
    incidents,
    h("h2", { id: "incidents" }, t("public.incidents")),
    found.length === 0 ? h("p", null, t("public.incidents.none")) : h("ul", { class: "cards" }, ...found.map(incidentCard)),
    more && h("p", { class: "quiet" }, t("public.incidents.more", { n: found.length })),
  );
}

function incidentCard(incident: Incident): HTMLElement {
  const people = PEOPLE.filter((name) => (incident.people[name] ?? "0") !== "0").map(
    (name) => `${t(`public.people.${name}`)} ${band(incident.people[name] as string, number)}`,
  );
  return h(
    "li",
    { class: "card" },
    h("h3", null, hazard(incident.hazard), place(incident)),
    h("p", { class: "line" }, severityMark(incident.severity), severityWord(incident.severity), " · ", t(`public.evidence.${incident.evidence}`)),
    people.length > 0 && h("p", null, people.join(" · ")),
    h("p", { class: "quiet" }, h("time", { datetime: incident.updated_at }, t("public.updated", { time: when(incident.updated_at), ago: ago(incident.updated_at) }))),
  );
}

function hazard(code: string | null): string {
  const labels = code === null ? undefined : hazards[code];
  return labels?.[language() === "id" ? 0 : 1] ?? code ?? t("public.event");
}

/** The regency or city, and nothing finer; where none is known, about where on the globe. */
function place(incident: Incident): string {
  const code = incident.admin?.startsWith("kemendagri:") ? incident.admin.slice(11) : null;
  const name = code === null ? undefined : (areas[code.slice(0, 5)] ?? areas[code.slice(0, 2)]);
  if (name !== undefined) return ` · ${name}`;
  if (incident.point === null) return "";
  const [lon, lat] = incident.point;
  return ` · ${t(lat < 0 ? "public.south" : "public.north", { lat: degrees(lat), lon: degrees(lon) })}`;
}

function degrees(value: number): string {
  return number(Math.round(Math.abs(value) * 10) / 10);
}

function drawHelp(all?: Everything): void {
  const gaps = missing(all?.report?.needs ?? []);
  fill(
    help,
    h("h2", { id: "help" }, t("public.help")),
    gaps.length > 0 && h("h3", null, t("public.help.missing")),
    gaps.length > 0 &&
      h("ul", { class: "gaps" }, ...gaps.map((need) =>
        h("li", null, severityMark(need.severity), h("span", { class: "unseen" }, severityWord(need.severity)),
          ` ${need.label}: ${band(need.gap, number)} ${units[need.unit]?.[language() === "id" ? 0 : 1] ?? need.unit}`))),
    h("ul", { class: "steps" },
      h("li", null, h("a", { href: "/field" }, t("public.help.report"))),
      h("li", null, h("a", { href: "/field#help" }, t("public.help.join"))),
      h("li", null, t("public.help.goods")),
      h("li", null, t("public.help.rumours")),
      h("li", null, h("a", { href: "/paper" }, t("public.help.paper")))),
  );
}

void start();
