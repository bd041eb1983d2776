// One incident, whole: what is known and how far it is believed, who needs what and who was asked, every report, and
// the chain of what happened to it.

import { call, Refused } from "../common/api.ts";
import { type Child, fill, h } from "../common/dom.ts";
import { ago, language, number, t, when } from "../common/i18n.ts";
import { level, severityMark, severityWord } from "../common/severity.ts";
import { explain } from "./actions.ts";
import type { Report } from "./load.ts";
import type { Desk } from "./desk.ts";
import { type Ledger, type Need, needOfJson } from "./state.ts";
import { area, counted, hazard, quantity, what, who, word } from "./words.ts";

type Fields = Record<string, unknown>;

interface Claim {
  value: unknown;
  report_id: string;
  source: string;
  official: boolean;
  observed_at: string;
}

interface Fact {
  value: unknown;
  evidence: string;
  disputed: boolean;
  claims: Claim[];
  vouched?: { value: unknown; evidence: string; by: string; reason: string; at: string };
}

interface Step {
  time: string;
  what: string;
  by?: string;
  reason?: string | null;
  changed?: string[];
  evidence?: string;
  status?: string;
}

export interface Whole {
  id: string;
  title: string;
  hazard: string | null;
  severity: number;
  status: "open" | "closed" | "merged";
  evidence: string;
  reports: number;
  priority: number;
  priority_reasons: { cause: string; found: string; points: number }[];
  attend_by: string | null;
  attended_at: string | null;
  overdue: boolean;
  admin: string | null;
  place: string | null;
  operation: string;
  exercise: boolean;
  sensitivity: string | null;
  exercise_suggested: boolean;
  updated_at: string;
  opened_at: string;
  merged_into: string | null;
  made?: string;
  linked_reports: Report[];
  facts: Record<string, Fact>;
  needs: Fields[];
  history: Step[];
  version: number;
}

/** What an officer may ask to be done from here; the actions are elsewhere. */
export interface Doing {
  verify(whole: Whole, fact: string | null): void;
  merge(whole: Whole): void;
  split(whole: Whole, reports: string[]): void;
  unlink(whole: Whole, report: Report): void;
  close(whole: Whole): void;
  postNeed(whole: Whole): void;
  declare(need: Need): void;
  withdraw(need: Need): void;
  amend(need: Need): void;
  assign(need: Need): void;
  release(assignment: string, need: Need): void;
}

export class Detail {
  readonly box: HTMLElement;
  id: string | null = null;
  private whole: Whole | null = null;
  private asking: AbortController | null = null;
  private chosen = new Set<string>();
  private readonly open = new Set<string>();
  private readonly explained = new Map<string, HTMLElement>();
  private readonly body = h("div", { class: "detail-body" });
  private readonly notice = h("div", { class: "notice", role: "status" });
  private later = 0;

  constructor(
    private readonly desk: Desk,
    private readonly doing: Doing,
    private readonly closed: () => void,
  ) {
    this.box = h(
      "aside",
      { class: "detail", "aria-label": t("detail.title"), hidden: true, tabindex: -1 },
      h("button", { type: "button", class: "close screen", "aria-label": t("detail.close"), title: "Esc", onclick: () => this.closed() }, "×"), // prettier-ignore
      this.notice,
      this.body,
    );
  }

  /** Show an incident; null: nothing. */
  show(id: string | null): void {
    if (id === this.id) {
      if (id !== null) this.box.focus();
      return;
    }
    this.id = id;
    this.whole = null;
    this.chosen.clear();
    this.explained.clear();
    this.asking?.abort();
    fill(this.notice);
    this.box.hidden = id === null;
    if (id === null) return;
    fill(this.body, h("p", { class: "quiet" }, t("loading")));
    this.box.scrollTop = 0;
    void this.load(true);
  }

  /** Something happened to it; look anew, at most twice a second. `by`: the person who decided, if one did. */
  changed(decision: { by: string; what: string; reason: string | null; time: string } | null): void {
    if (decision !== null) {
      fill(
        this.notice,
        h("p", null, h("strong", null, t("detail.other", { who: who(decision.by), what: word("step", decision.what) })), " ", when(decision.time)), // prettier-ignore
        decision.reason !== null && h("p", null, h("q", { class: "words" }, decision.reason)),
        h("button", { type: "button", class: "close", "aria-label": t("done.close"), onclick: () => fill(this.notice) }, "×"), // prettier-ignore
      );
    }
    if (this.later !== 0) return;
    this.later = window.setTimeout(() => {
      this.later = 0;
      void this.load(false);
    }, 500);
  }

  refresh(): void {
    void this.load(false);
  }

  /** Take over what the answer to an edit says. */
  take(whole: Whole): void {
    if (whole.id !== this.id) return;
    this.whole = whole;
    this.draw();
  }

  private async load(first: boolean): Promise<void> {
    const id = this.id;
    if (id === null) return;
    this.asking?.abort();
    const asking = (this.asking = new AbortController());
    try {
      const answer = await call<{ properties: Whole }>(`/v1/incidents/${id}`, { signal: asking.signal });
      if (this.id !== id) return;
      this.whole = answer.properties;
      this.draw();
      if (first) this.box.focus();
    } catch (error) {
      if (asking.signal.aborted) return;
      if (!(error instanceof Refused)) throw error;
      if (this.whole === null) fill(this.body, h("p", { role: "alert" }, explain(error)));
    }
  }

  private draw(): void {
    const whole = this.whole;
    if (whole === null) return;
    // Which parts were opened stays as it is, or a busy incident would close them under the reader.
    const focus = document.activeElement?.getAttribute("data-keep") ?? null;
    fill(
      this.body,
      this.head(whole),
      this.desk.edits && whole.status !== "merged" && this.tools(whole),
      this.facts(whole),
      this.needs(whole),
      this.reports(whole),
      this.history(whole),
    );
    if (focus !== null) this.body.querySelector<HTMLElement>(`[data-keep="${CSS.escape(focus)}"]`)?.focus();
  }

  private part(name: string, title: Child[], opened: boolean, ...content: Child[]): HTMLElement {
    const box = h("details", { class: `part part-${name}` }, h("summary", { "data-keep": `part-${name}` }, h("h3", null, title)), ...content); // prettier-ignore
    box.open = this.open.has(name) !== opened;
    box.addEventListener("toggle", () => {
      if (box.open === opened) this.open.delete(name);
      else this.open.add(name);
    });
    return box;
  }

  private head(whole: Whole): HTMLElement {
    const late = whole.overdue ? h("span", { class: "flag late" }, t("flag.late")) : null;
    const places = [whole.place, area(whole.admin)].filter((place) => place !== null);
    return h(
      "header",
      null,
      h(
        "div",
        { class: "row-head" },
        h("span", { class: `severity severity-${level(whole.severity)}` }, severityMark(whole.severity), h("span", null, severityWord(whole.severity))), // prettier-ignore
        h("span", null, hazard(whole.hazard)),
        whole.status !== "open" && h("span", { class: "flag" }, t(`status.${whole.status}`)),
        late,
        whole.sensitivity !== null && h("span", { class: "flag" }, t("flag.protected")),
        whole.exercise_suggested && h("span", { class: "flag" }, t("flag.drill")),
      ),
      h("h2", null, h("bdi", null, whole.title)),
      h("p", { class: "quiet" }, h("bdi", null, places.join(" · ")), " · ", t("detail.times", { opened: when(whole.opened_at), ago: ago(whole.updated_at) })), // prettier-ignore
      whole.merged_into !== null && h("p", null, t("detail.merged")),
      h(
        "details",
        { class: "why" },
        h("summary", { "data-keep": "priority" }, t("detail.priority", { n: whole.priority })),
        h(
          "ul",
          null,
          whole.priority_reasons
            .filter(({ points, cause }) => points !== 0 || cause === "stated")
            .map(({ cause, found, points }) =>
              h("li", null, `${word("cause", cause)}: `, h("bdi", null, found), points !== 0 && ` (+${number(points)})`),
            ),
        ),
      ),
    );
  }

  private tools(whole: Whole): HTMLElement {
    const tool = (key: string, run: () => void, more: Record<string, string | boolean> = {}): HTMLElement =>
      h("button", { type: "button", onclick: run, "data-keep": `tool-${key}`, ...more }, t(`do.${key}`));
    const open = whole.status === "open";
    return h(
      "div",
      { class: "tools screen", role: "group", "aria-label": t("detail.tools") },
      tool("verify", () => this.doing.verify(whole, null), { class: "first" }),
      open && tool("need", () => this.doing.postNeed(whole)),
      open && tool("merge", () => this.doing.merge(whole)),
      open && whole.linked_reports.length > 1 && tool("split", () => this.doing.split(whole, [...this.chosen])),
      open && tool("close", () => this.doing.close(whole)),
    );
  }

  private facts(whole: Whole): HTMLElement {
    const rows = Object.entries(whole.facts).filter(([, fact]) => fact.value !== null || fact.claims.length > 0);
    const value = (name: string, of: unknown): string =>
      of === null || of === undefined ? t("fact.none")
      : name === "hazard" ? hazard(String(of))
      : name === "water_depth_cm" ? t("fact.cm", { n: Math.round(Number(of)) })
      : typeof of === "number" ? number(of) : String(of); // prettier-ignore
    return this.part(
      "facts",
      [t("detail.facts")],
      true,
      h(
        "p",
        null,
        t("detail.evidence"),
        " ",
        h("span", { class: `evidence evidence-${whole.evidence}` }, word("evidence", whole.evidence)),
      ),
      h(
        "dl",
        { class: "facts" },
        rows.map(([name, fact]) =>
          h(
            "div",
            { class: fact.disputed ? "fact disputed" : "fact" },
            h("dt", null, word("fact", name)),
            h(
              "dd",
              null,
              h("strong", null, value(name, fact.value)),
              " ",
              h("span", { class: `evidence evidence-${fact.evidence}` }, word("evidence", fact.evidence)),
              fact.disputed && h("span", { class: "flag" }, t("flag.disputed")),
              this.desk.edits && h("button", { type: "button", class: "small screen", "data-keep": `fact-${name}`, "aria-label": t("do.verify_fact", { fact: word("fact", name) }), onclick: () => this.doing.verify(whole, name) }, t("do.verify_short")), // prettier-ignore
              (fact.claims.length > 1 || fact.vouched !== undefined) &&
                h(
                  "details",
                  { class: "why" },
                  h("summary", { "data-keep": `claims-${name}` }, t("fact.claims", { n: fact.claims.length + Number(fact.vouched !== undefined) })), // prettier-ignore
                  h(
                  "ul",
                  { class: "claims" },
                  fact.vouched !== undefined &&
                    h("li", null, `${value(name, fact.vouched.value)} · ${who(fact.vouched.by)} · ${when(fact.vouched.at)} `, h("q", { class: "words" }, fact.vouched.reason)), // prettier-ignore
                  fact.claims.slice(-5).map((claim) => h("li", null, `${value(name, claim.value)} · `, h("bdi", null, claim.source), ` · ${when(claim.observed_at)}`, claim.official && ` · ${t("evidence.official")}`)), // prettier-ignore
                  ),
                ),
            ),
          ),
        ),
      ),
    );
  }

  private needs(whole: Whole): HTMLElement {
    const needs = whole.needs.map(needOfJson).sort((a, b) => STATUS_ORDER[a.status] - STATUS_ORDER[b.status] || b.severity - a.severity); // prettier-ignore
    const live = needs.filter((need) => need.status !== "withdrawn").length;
    return this.part(
      "needs",
      [t("detail.needs"), " ", h("span", { class: "count" }, number(live))],
      true,
      needs.length === 0 && h("p", { class: "quiet" }, t("detail.no_needs")),
      ...needs.map((need) => this.need(need)),
    );
  }

  private need(need: Need): HTMLElement {
    const tool = (key: string, run: () => void, first = false): HTMLElement =>
      h("button", { type: "button", class: first ? "first small" : "small", "data-keep": `${key}-${need.id}`, onclick: run, "aria-label": `${t(`do.${key}`)}: ${what(need)}` }, t(`do.${key}`)); // prettier-ignore
    const why = h("div", { class: "explained", "aria-live": "polite" });
    const kept = this.explained.get(need.id);
    if (kept !== undefined) why.append(kept);
    return h(
      "article",
      { class: `need need-${need.status}` },
      h(
        "h4",
        null,
        severityMark(need.severity),
        h("span", { class: "unseen" }, severityWord(need.severity)),
        ` ${quantity(need.quantity, need.unit)} ${what(need)}`,
        need.status !== "declared" && h("span", { class: "flag" }, t(`need.${need.status}`)),
      ),
      need.status === "declared" && ledgerBar(need.ledger, need.unit),
      need.reason !== null && h("p", { class: "quiet words" }, need.reason),
      h(
        "div",
        { class: "tools screen" },
        this.desk.edits && need.status === "draft" && tool("declare", () => this.doing.declare(need), true),
        need.status === "declared" && tool("why", () => void this.explainNeed(need, why)),
        this.desk.edits && need.status === "declared" && need.ledger.open + need.ledger.offered > 0 && tool("assign", () => this.doing.assign(need)), // prettier-ignore
        this.desk.edits && need.status !== "withdrawn" && tool("amend", () => this.doing.amend(need)),
        this.desk.edits && need.status !== "withdrawn" && tool("withdraw", () => this.doing.withdraw(need)),
      ),
      why,
    );
  }

  private async explainNeed(need: Need, box: HTMLElement): Promise<void> {
    if (this.explained.delete(need.id)) {
      fill(box);
      return;
    }
    fill(box, t("loading"));
    const content = h("div", null);
    try {
      const [told, assignments] = await Promise.all([
        call<Explanation>(`/v1/needs/${need.id}/explanation?lang=${language()}`),
        call<{ assignments: Fields[] }>(`/v1/assignments?need=${need.id}&limit=100`),
      ]);
      fill(content, this.told(need, told, assignments.assignments));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      fill(content, explain(error));
    }
    this.explained.set(need.id, content);
    fill(box, content);
  }

  private told(need: Need, told: Explanation, assignments: Fields[]): Child[] {
    const sentences = (of: string[]): HTMLElement => h("ul", null, of.map((sentence) => h("li", null, sentence)));
    const unmet = told.unmet;
    return [
      unmet !== null && h("h5", null, t("why.unmet", { n: quantity(unmet.units, need.unit) })),
      unmet !== null && (unmet.sentences?.length ? sentences(unmet.sentences) : h("p", null, unmet.why)),
      assignments.length > 0 && h("h5", null, t("why.assigned")),
      assignments.length > 0 &&
        h(
          "ul",
          null,
          assignments.map((each) =>
            h(
              "li",
              null,
              `${word("assignment", String(each["state"]))}: ${quantity(Number(each["quantity"]), need.unit)} · `,
              h("bdi", null, String(each["organisation"] ?? t("why.no_organisation"))),
              each["overdue"] === true && h("span", { class: "flag late" }, t("flag.silent")),
              this.desk.edits && ["made", "started"].includes(String(each["state"])) && h("button", { type: "button", class: "small screen", onclick: () => this.doing.release(String(each["assignment_id"]), need) }, t("do.release")), // prettier-ignore
            ),
          ),
        ),
      told.offers.length > 0 && h("h5", null, t("why.offers", { n: told.offers.length })),
      ...told.offers
        .slice(-12)
        .reverse()
        .map((offer) =>
          h(
            "details",
            { class: "offer" },
            h(
              "summary",
              null,
              `${word("offer", offer.state)}: ${quantity(offer.quantity, need.unit)} · `,
              h("bdi", null, offer.organisation ?? t("why.no_organisation")),
              offer.distance_km !== undefined && ` · ${t("why.km", { n: Math.round(offer.distance_km) })}`,
            ),
            offer.reason !== undefined && h("p", { class: "words" }, offer.reason),
            sentences(offer.sentences),
          ),
        ),
      told.offers.length === 0 && unmet === null && h("p", { class: "quiet" }, t("why.nothing")),
    ];
  }

  private reports(whole: Whole): HTMLElement {
    return this.part(
      "reports",
      [t("detail.reports"), " ", h("span", { class: "count" }, number(whole.reports))],
      true,
      ...[...whole.linked_reports].reverse().map((report) => this.report(whole, report)),
    );
  }

  private report(whole: Whole, report: Report): HTMLElement {
    const several = whole.linked_reports.length > 1 && whole.status === "open" && this.desk.edits;
    const choose = h("input", { type: "checkbox", "data-keep": `choose-${report.report_id}`, "aria-label": t("split.choose") }); // prettier-ignore
    choose.checked = this.chosen.has(report.report_id);
    choose.addEventListener("change", () => {
      if (choose.checked) this.chosen.add(report.report_id);
      else this.chosen.delete(report.report_id);
    });
    const words = [report.title, report.text].filter((text) => text).join("\n");
    return h(
      "article",
      { class: "report" },
      h(
        "div",
        { class: "row-head" },
        several && choose,
        h("span", null, word("kind", report.reporter_kind)),
        h("bdi", { class: "quiet" }, report.origin),
        report.bulk && h("span", { class: "flag" }, t("flag.bulk")),
        h("time", { class: "age", datetime: report.observed_at }, when(report.observed_at)),
      ),
      h("p", { class: "words long" }, words === "" ? t("report.no_words") : words),
      report.media !== null && report.media.length > 0 && h("p", { class: "quiet" }, counted("report.media", report.media.length)), // prettier-ignore
      h(
        "div",
        { class: "row-foot" },
        report.location?.place !== undefined && h("bdi", null, report.location.place),
        h("details", { class: "why" }, h("summary", { "data-keep": `link-${report.report_id}` }, linkWords(report)), linkWhy(report)), // prettier-ignore
        several && h("button", { type: "button", class: "small screen", "data-keep": `unlink-${report.report_id}`, onclick: () => this.doing.unlink(whole, report) }, t("do.unlink")), // prettier-ignore
      ),
    );
  }

  private history(whole: Whole): HTMLElement {
    return this.part(
      "history",
      [t("detail.history"), " ", h("span", { class: "count" }, number(whole.history.length))],
      false,
      h(
        "ol",
        { class: "chain" },
        [...whole.history].reverse().map((step) =>
          h(
            "li",
            { class: isPerson(step.by) ? "decision" : "" },
            h("time", { datetime: step.time }, when(step.time)),
            ` ${word("step", step.what)}`,
            step.what === "verified" && step.evidence !== undefined && ` (${word("evidence", step.evidence)})`,
            ` · ${who(step.by)}`,
            step.changed !== undefined && step.changed.length > 0 && h("span", { class: "quiet" }, ` · ${step.changed.map((name) => word("fact", name)).join(", ")}`), // prettier-ignore
            step.reason ? h("q", { class: "words" }, step.reason) : null,
          ),
        ),
      ),
    );
  }
}

const STATUS_ORDER = { draft: 0, declared: 1, withdrawn: 2 } as const;

interface Explanation {
  offers: {
    offer_id: string;
    organisation?: string;
    quantity: number;
    state: string;
    distance_km?: number;
    reason?: string;
    sentences: string[];
  }[];
  unmet: { units: number; why: string; sentences?: string[] } | null;
}

export function isPerson(by: string | null | undefined): boolean {
  return by !== undefined && by !== null && /^(operator|field|partner|admin|responder):/.test(by);
}

const PARTS = ["open", "offered", "committed", "in_transit", "delivered", "confirmed"] as const;

/** The ledger as a bar and, because a bar is only a picture, as words. */
export function ledgerBar(ledger: Ledger, unit: string): HTMLElement {
  const parts = PARTS.filter((name) => ledger[name] > 0);
  return h(
    "div",
    { class: "ledger" },
    h(
      "div",
      { class: "bar", "aria-hidden": "true" },
      parts.map((name) => {
        const part = h("span", { class: `ledger-${name}` });
        part.style.flexGrow = String(ledger[name]);
        return part;
      }),
    ),
    h(
      "p",
      { class: "ledger-words" },
      t("ledger.needed", { n: quantity(ledger.needed - ledger.cancelled, unit) }),
      parts.map((name) => h("span", { class: `key key-${name}` }, `${number(ledger[name])} ${t(`ledger.${name}`)}`)),
    ),
  );
}

function linkWords(report: Report): string {
  if (isPerson(report.linked_by)) return t("link.by_hand", { who: who(report.linked_by) });
  if (report.copy_of !== null) return t("link.copy");
  if (report.score === null) return t("link.first");
  if (report.score < 0.5) return t("link.opened", { n: percent(report.score) });
  return t("link.score", { n: percent(report.score) });
}

function percent(score: number): number {
  return Math.round(score * 100);
}

/** What spoke for and against the link, the weightiest first. */
function linkWhy(report: Report): Child {
  const parts = Object.entries(report.parts ?? {})
    .filter(([, weight]) => Math.abs(weight) >= 0.05)
    .sort(([, a], [, b]) => Math.abs(b) - Math.abs(a));
  if (parts.length === 0) return h("p", { class: "quiet" }, t("link.nothing"));
  return h(
    "ul",
    null,
    parts.map(([name, weight]) =>
      h("li", null, `${t(weight > 0 ? "link.for" : "link.against")}: ${word("linkpart", name)} (${weight.toLocaleString(language(), { maximumFractionDigits: 1 })})`), // prettier-ignore
    ),
  );
}

