// The four lists that are always on screen: incidents, unmet needs, drafts, reports without a place.

import { fill, h, keyed, text } from "../common/dom.ts";
import { ago, number, t, when } from "../common/i18n.ts";
import { level, severityMark, severityWord } from "../common/severity.ts";
import type { Report } from "./load.ts";
import type { Incident, Need } from "./state.ts";
import { counted, hazard, needWords, quantity, what, word } from "./words.ts";

const STEP = 50;

export type ListName = "incidents" | "needs" | "drafts" | "unplaced";

export interface Opened {
  incident(id: string): void;
  need(need: Need): void;
  report(report: Report): void;
}

/** A list that grows by a button: five thousand rows would be five thousand rows to lay out. */
class List<T> {
  readonly box: HTMLElement;
  readonly rows = h("ol", { class: "rows" });
  private readonly count = h("span", { class: "count" });
  private readonly empty: HTMLElement;
  private readonly more = h("button", { class: "more", type: "button", onclick: () => this.grow() });
  private shown = STEP;
  private items: readonly T[] = [];

  constructor(
    readonly name: ListName,
    key: string,
    private readonly id: (item: T) => string,
    private readonly make: (item: T) => HTMLElement,
    private readonly update: (row: HTMLElement, item: T) => void,
  ) {
    this.empty = h("p", { class: "empty" }, t(`${name}.empty`));
    this.box = h(
      "section",
      { class: `list list-${name}`, id: `list-${name}`, "aria-labelledby": `title-${name}`, "data-list": name },
      h(
        "h2",
        { id: `title-${name}` },
        h("kbd", { "aria-hidden": "true", class: "screen" }, key),
        t(`${name}.title`),
        " ",
        this.count,
      ),
      h("div", { class: "scroll" }, this.rows, this.empty, this.more),
    );
  }

  show(items: readonly T[]): void {
    this.items = items;
    this.draw();
  }

  private draw(): void {
    const shown = this.items.slice(0, this.shown);
    text(this.count, number(this.items.length));
    this.empty.hidden = this.items.length > 0;
    keyed(this.rows, shown, this.id, this.make, this.update);
    const left = this.items.length - shown.length;
    this.more.hidden = left <= 0;
    if (left > 0) text(this.more, t("more", { n: Math.min(left, STEP), left }));
  }

  grow(): void {
    this.shown += STEP;
    this.draw();
  }

  /** The row that has the focus, or the first: moved by `by` rows, growing the list at its end. */
  step(by: number): void {
    const rows = [...this.rows.querySelectorAll<HTMLButtonElement>("button.row")];
    const at = rows.indexOf(document.activeElement as HTMLButtonElement);
    if (at + by >= rows.length && this.shown < this.items.length) {
      this.grow();
      this.step(by);
      return;
    }
    const next = at < 0 ? rows[0] : rows[Math.max(0, Math.min(rows.length - 1, at + by))];
    next?.focus();
    next?.scrollIntoView({ block: "nearest" });
  }
}

export class Queues {
  readonly incidents: List<Incident>;
  readonly needs: List<Need>;
  readonly drafts: List<Need>;
  readonly unplaced: List<Report>;

  constructor(private readonly opened: Opened) {
    const needId = (need: Need): string => need.id;
    this.incidents = new List("incidents", "1", (incident) => incident.id, this.incidentRow, updateIncident);
    this.needs = new List("needs", "2", needId, this.needRow, updateNeed);
    this.drafts = new List("drafts", "3", needId, this.needRow, updateDraft);
    this.unplaced = new List("unplaced", "4", (report) => report.report_id, this.reportRow, updateReport);
  }

  list(name: ListName): List<Incident> | List<Need> | List<Report> {
    return this[name];
  }

  /** Mark the row of the incident that is open beside the list. */
  mark(id: string | null): void {
    for (const row of this.incidents.rows.querySelectorAll("button.row")) {
      if (row.getAttribute("data-id") === id) row.setAttribute("aria-current", "true");
      else row.removeAttribute("aria-current");
    }
  }

  private readonly incidentRow = (incident: Incident): HTMLElement =>
    h(
      "li",
      null,
      h("button", {
        class: "row",
        type: "button",
        "data-id": incident.id,
        onclick: () => this.opened.incident(incident.id),
      }),
    );

  private readonly needRow = (need: Need): HTMLElement => {
    const row = h("li", null, h("button", { class: "row", type: "button", "data-id": need.id }));
    row.firstElementChild?.addEventListener("click", () => this.opened.need(LATEST.get(row) ?? need));
    return row;
  };

  private readonly reportRow = (report: Report): HTMLElement =>
    h(
      "li",
      null,
      h("button", {
        class: "row",
        type: "button",
        "data-id": report.report_id,
        onclick: () => this.opened.report(report),
      }),
    );
}

const LATEST = new WeakMap<HTMLElement, Need>();
const DRAWN = new WeakMap<HTMLElement, string>();

/** Draw a row anew only where what it says differs from what it said. */
function redraw(row: HTMLElement, said: string, draw: (button: Element) => void): void {
  if (DRAWN.get(row) === said || row.firstElementChild === null) return;
  DRAWN.set(row, said);
  draw(row.firstElementChild);
}

export function heads(people: Incident["people"]): string {
  const parts: string[] = [];
  for (const name of ["dead", "missing", "injured", "displaced", "affected"] as const) {
    const count = people[name];
    if (count) parts.push(`${number(count)} ${t(`people.${name}`)}`);
  }
  return parts.slice(0, 2).join(", ");
}

function severity(at: number): HTMLElement {
  return h("span", { class: `severity severity-${level(at)}` }, severityMark(at), h("span", null, severityWord(at)));
}

function updateIncident(row: HTMLElement, incident: Incident): void {
  const now = Date.now();
  const late = incident.attendBy !== null && incident.attendBy < now && incident.status === "open";
  const age = ago(incident.updated, now);
  const said = [
    incident.severity, incident.title, incident.place, incident.evidence, incident.reports, incident.status, late,
    heads(incident.people), age, incident.disputed.length, incident.sensitivity, incident.drill,
  ].join("|"); // prettier-ignore
  redraw(row, said, (button) =>
    fill(
      button,
      h(
        "span",
        { class: "row-head" },
        severity(incident.severity),
        late && h("span", { class: "flag late" }, t("flag.late")),
        incident.status === "closed" && h("span", { class: "flag" }, t("status.closed")),
        incident.disputed.length > 0 && h("span", { class: "flag" }, t("flag.disputed")),
        incident.sensitivity !== null && h("span", { class: "flag" }, t("flag.protected")),
        incident.drill && h("span", { class: "flag" }, t("flag.drill")),
        h("time", { class: "age", datetime: new Date(incident.updated).toISOString(), title: when(incident.updated) }, age),
      ),
      h("bdi", { class: "row-title" }, incident.title),
      h(
        "span",
        { class: "row-foot" },
        h("span", { class: `evidence evidence-${incident.evidence}` }, word("evidence", incident.evidence)),
        h("span", null, counted("reports.count", incident.reports)),
        heads(incident.people) !== "" && h("span", null, heads(incident.people)),
        incident.place !== null && h("bdi", { class: "place" }, incident.place),
      ),
    ),
  );
}

function needRowOf(row: HTMLElement, need: Need, foot: (string | false)[]): void {
  LATEST.set(row, need);
  const age = ago(need.since);
  redraw(row, [need.severity, need.quantity, need.place, age, ...foot].join("|"), (button) =>
    fill(
      button,
      h(
        "span",
        { class: "row-head" },
        severity(need.severity),
        h("time", { class: "age", datetime: new Date(need.since).toISOString(), title: when(need.since) }, age),
      ),
      h("bdi", { class: "row-title" }, need.status === "draft" ? needWords(need) : what(need)),
      h(
        "span",
        { class: "row-foot" },
        foot.map((part) => part !== false && h("span", null, part)),
        need.place !== null && h("bdi", { class: "place" }, need.place),
      ),
    ),
  );
}

function updateNeed(row: HTMLElement, need: Need): void {
  const { open, offered, needed, cancelled } = need.ledger;
  needRowOf(row, need, [
    open > 0 ? t("need.open", { open: quantity(open, need.unit), of: needed - cancelled }) : t("need.all_asked"),
    offered > 0 && t("need.asked", { n: offered }),
  ]);
}

function updateDraft(row: HTMLElement, need: Need): void {
  needRowOf(row, need, [need.lon === null && t("need.no_point"), need.incident === null && t("need.foreseen")]);
}

function updateReport(row: HTMLElement, report: Report): void {
  const age = ago(report.received_at);
  redraw(row, `${report.report_id}|${age}`, (button) =>
    fill(
      button,
      h(
        "span",
        { class: "row-head" },
        severity(report.severity ?? 0),
        report.overdue && h("span", { class: "flag late" }, t("flag.late")),
        h("time", { class: "age", datetime: report.received_at, title: when(report.received_at) }, age),
      ),
      h("bdi", { class: "row-title" }, report.title ?? report.text ?? t("report.no_words")),
      h(
        "span",
        { class: "row-foot" },
        report.hazard !== null && h("span", null, hazard(report.hazard)),
        report.location?.place && h("bdi", { class: "place" }, report.location.place),
      ),
    ),
  );
}
