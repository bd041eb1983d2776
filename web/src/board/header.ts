// The line on top: which operation and its declared status, what waits, how fresh it all is, and the filters.

import { fill, h, text } from "../common/dom.ts";
import { ago, language, number, t, when } from "../common/i18n.ts";
import { severityWord } from "../common/severity.ts";
import type { Session } from "../common/session.ts";
import type { State } from "../common/stream.ts";
import type { Filters } from "./filters.ts";
import type { Operation } from "./load.ts";
import { areaCodes, counted, hazard, hazardCodes, word } from "./words.ts";

/** The server speaks every 15 s at least; what is older than this is said to be. */
export const STALE_MS = 20_000;

export interface Wishes {
  operation(id: string): void;
  filters(change: Partial<Filters>): void;
  clear(): void;
  sitrep(): void;
  warnings(): void;
  status(): void;
  help(): void;
  language(): void;
  theme(): void;
  leave(): void;
}

export class Header {
  readonly box: HTMLElement;
  readonly stale = h("p", { class: "stale", role: "alert", hidden: true });
  readonly search: HTMLInputElement;
  private readonly operation: HTMLSelectElement;
  private readonly status = h("button", { class: "chip", type: "button" });
  private readonly warningButton = h("button", { class: "chip", type: "button", hidden: true });
  private readonly totals = h("p", { class: "totals" });
  private readonly live = h("span", { class: "live" });
  private readonly hazard: HTMLSelectElement;
  private readonly severity: HTMLSelectElement;
  private readonly state: HTMLSelectElement;
  private readonly area: HTMLSelectElement;
  private readonly clear: HTMLButtonElement;
  private typed = 0;

  constructor(operations: Operation[], chosen: string, session: Session | null, wishes: Wishes) {
    const select = (label: string, change: (value: string) => void, options: [string, string][]): HTMLSelectElement =>
      h("select", { "aria-label": label, onchange: (event) => change((event.target as HTMLSelectElement).value) }, options.map(([value, words]) => h("option", { value }, words))); // prettier-ignore
    this.operation = select(t("operation"), (value) => wishes.operation(value), [
      ["", t("operation.all")],
      ...operations.map((each) => [each.id, each.title] as [string, string]),
    ]);
    this.operation.value = chosen;
    this.hazard = select(t("filter.hazard"), (value) => wishes.filters({ hazard: value }), [
      ["", t("filter.hazard_all")],
      ...hazardCodes().map((code) => [code, hazard(code)] as [string, string]),
    ]);
    this.severity = select(t("filter.severity"), (value) => wishes.filters({ severity: Number(value) }), [
      ["0", t("filter.severity_all")],
      ...[2, 3, 4].map((at) => [String(at), t(at === 4 ? "filter.only" : "filter.from", { severity: severityWord(at) })] as [string, string]), // prettier-ignore
    ]);
    this.state = select(t("filter.status"), (value) => wishes.filters({ status: value as Filters["status"] }), [
      ["open", t("status.open")],
      ["closed", t("status.closed")],
      ["all", t("filter.status_all")],
    ]);
    this.area = select(t("filter.area"), (value) => wishes.filters({ area: value }), [["", t("filter.area_all")]]);
    this.search = h("input", {
      type: "search", placeholder: t("filter.search"), "aria-label": t("filter.search"), oninput: () => {
        clearTimeout(this.typed);
        this.typed = window.setTimeout(() => wishes.filters({ text: this.search.value.trim() }), 200);
      },
    }); // prettier-ignore
    this.clear = h("button", { type: "button", hidden: true, onclick: () => wishes.clear() }, t("filter.clear"));
    this.status.addEventListener("click", () => wishes.status());
    this.warningButton.addEventListener("click", () => wishes.warnings());
    const tool = (words: string, run: () => void, title: string): HTMLElement => h("button", { type: "button", onclick: run, title, "aria-label": /\w/.test(words) ? null : title }, words); // prettier-ignore
    this.box = h(
      "header",
      { class: "top" },
      h(
        "div",
        { class: "line" },
        h("h1", { class: "unseen" }, t("board.title")),
        this.operation,
        this.status,
        this.warningButton,
        this.totals,
        h("span", { class: "space" }),
        this.live,
      ),
      h(
        "div",
        { class: "line filters" },
        this.search,
        this.hazard,
        this.severity,
        this.area,
        this.state,
        this.clear,
        h("span", { class: "space" }),
        h("button", { type: "button", class: "first", onclick: () => wishes.sitrep() }, t("sitrep.short")),
        tool(language() === "id" ? "EN" : "ID", () => wishes.language(), t("language.other")),
        tool("◐", () => wishes.theme(), t("theme")),
        tool("?", () => wishes.help(), t("help.title")),
        session !== null && h("button", { type: "button", class: "who", onclick: () => wishes.leave(), title: t("leave") }, h("bdi", null, `${word("who", session.role)} ${session.subject}`), " ×"), // prettier-ignore
      ),
      this.stale,
    );
  }

  operationStatus(operation: Operation | undefined): void {
    const declared = operation?.status ?? null;
    this.status.hidden = operation === undefined;
    text(
      this.status,
      declared === null
        ? t("declared.none")
        : [word("declared", declared.declared), declared.level !== null && word("level", declared.level)].filter(Boolean).join(", "), // prettier-ignore
    );
  }

  warnings(count: number): void {
    this.warningButton.hidden = count === 0;
    text(this.warningButton, counted("warnings.count", count));
  }

  /** Provinces and regencies that incidents lie in, for the filter by area. */
  areas(codes: ReadonlySet<string>, chosen: string): void {
    const wanted = [...codes].sort();
    if (chosen !== "" && !codes.has(chosen)) wanted.push(chosen);
    const key = wanted.join();
    if (this.area.dataset["key"] !== key) {
      this.area.dataset["key"] = key;
      const names = areaCodes();
      fill(
        this.area,
        h("option", { value: "" }, t("filter.area_all")),
        wanted.map((code) => h("option", { value: code }, `${code.length > 2 ? "  " : ""}${names[code] ?? code}`)),
      );
    }
    this.area.value = chosen;
  }

  filters(filters: Filters): void {
    this.hazard.value = filters.hazard;
    this.severity.value = String(filters.severity);
    this.state.value = filters.status;
    if (document.activeElement !== this.search) this.search.value = filters.text;
    this.clear.hidden = !(
      filters.hazard || filters.severity || filters.area || filters.hours || filters.text || filters.status !== "open"
    );
  }

  counts(open: number, atRisk: number, unmetUnits: number): void {
    const part = (count: number, key: string, hot = false): HTMLElement => h("span", { class: hot && count > 0 ? "hot" : "" }, h("b", null, number(count)), " ", t(key)); // prettier-ignore
    const said = `${open} ${atRisk} ${unmetUnits}`;
    if (this.totals.dataset["said"] === said) return;
    this.totals.dataset["said"] = said;
    fill(this.totals, part(open, "total.open"), part(atRisk, "total.risk", true), part(unmetUnits, "total.unmet"));
  }

  /** How fresh the page is; past some seconds of silence that is said where nobody can miss it. */
  freshness(state: State, heard: number, now: number): void {
    const old = now - heard;
    const stalled = state !== "live" || old > STALE_MS;
    text(this.live, stalled ? t("live.stalled") : t("live.on"));
    this.live.className = stalled ? "live live-stalled" : "live";
    const say = stalled && old > 3_000;
    this.stale.hidden = !say;
    if (say) {
      text(this.stale, t(state === "denied" ? "live.denied" : "live.old", { ago: ago(heard, now), time: when(heard) })); // prettier-ignore
    }
  }
}
