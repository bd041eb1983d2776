// The board as a whole: it keeps the parts in step with what is known, with the address, and with the keys.

import { again } from "../common/again.ts";
import { Refused } from "../common/api.ts";
import { fill, h } from "../common/dom.ts";
import { t, when } from "../common/i18n.ts";
import { session } from "../common/session.ts";
import { type Message, type State, Stream } from "../common/stream.ts";
import { Done, explain } from "./actions.ts";
import type { Desk } from "./desk.ts";
import { Detail, isPerson } from "./detail.ts";
import { Actions } from "./doing.ts";
import { drafts, type Filters, fromQuery, NO_FILTERS, queue, toQuery, unmet } from "./filters.ts";
import { Header } from "./header.ts";
import { declaredDialog, helpDialog, legend, warningsDialog } from "./dialogs.ts";
import * as load from "./load.ts";
import type { BoardMap } from "./map.ts";
import { type ListName, Queues } from "./queue.ts";
import { Sitrep } from "./sitrep.ts";
import { type CloudEvent, type Incident, incidentOfFeature, type Need, type Part, Store } from "./state.ts";
import { TimeBar } from "./timebar.ts";
import { what } from "./words.ts";

/** Events are gathered for so long before the page is drawn anew: a screen that flickers is not read. */
const GATHER_MS = 150;
const AGES_MS = 15_000;
const LISTS: ListName[] = ["incidents", "needs", "drafts", "unplaced"];

export interface Outside {
  language(): void;
  theme(): void;
  leave(): void;
}

export class Board {
  private readonly store: Store;
  private past: Store | null = null;
  private asOf: number | null = null;
  private filters: Filters;
  private readonly header: Header;
  private readonly queues: Queues;
  private readonly timebar: TimeBar;
  private readonly detail: Detail;
  private readonly sitrep: Sitrep;
  private readonly actions: Actions;
  private readonly desk: Desk;
  private readonly mapBox = h("div", { class: "map", id: "map", tabindex: 0, role: "application", "aria-label": t("map.title") }); // prettier-ignore
  private readonly pastNote = h("p", { class: "past", role: "status", hidden: true });
  private stream: Stream | null = null;
  private pending: Message[] = [];
  private gathering = 0;
  private filled = false;
  private waiting: load.Report[] = [];
  private askingPlaces = 0;
  private origins = new Map<string, [number, number]>();
  private shown: Incident[] = [];

  constructor(
    private readonly app: HTMLElement,
    operations: load.Operation[],
    private readonly operation: load.Operation | null,
    outside: Outside,
  ) {
    const query = new URLSearchParams(location.search);
    this.filters = fromQuery(query);
    const asOf = Date.parse(query.get("as_of") ?? "");
    this.asOf = Number.isNaN(asOf) ? null : asOf;
    this.store = new Store({ operation: operation?.id ?? null, exercise: operation?.exercise ?? false });
    const who = session();
    const desk: Desk = {
      store: this.store,
      operations,
      edits: who !== null && ["operator", "admin"].includes(who.role) && this.asOf === null,
      me: who === null ? "" : `${who.role}:${who.subject}`,
      done: new Done(),
      map: null,
      open: (id) => this.open(id),
      refresh: () => this.detail.refresh(),
      unplaced: () => void this.askUnplaced(),
      showMap: () => this.view("map"),
    };
    this.desk = desk;
    this.actions = new Actions(desk);
    this.header = new Header(operations, operation?.id ?? "", who, {
      ...outside,
      theme: () => {
        outside.theme();
        desk.map?.recolour();
      },
      operation: (id) => this.go({ operation: id, incident: "", area: "", as_of: "" }),
      filters: (change) => this.filter({ ...this.filters, ...change }),
      clear: () => this.filter(NO_FILTERS),
      sitrep: () => this.sitrep.open(),
      warnings: () => warningsDialog(this.store),
      status: () => {
        if (operation !== null) void declaredDialog(operation);
      },
      help: () => helpDialog(),
    });
    this.queues = new Queues({
      incident: (id) => this.open(id),
      need: (need) => this.openNeed(need),
      report: (report) => {
        if (desk.edits) this.actions.place(report);
      },
    });
    this.timebar = new TimeBar({
      hours: (hours) => this.filter({ ...this.filters, hours }),
      asOf: (instant) => void this.goBack(instant),
    });
    this.detail = new Detail(desk, this.actions, () => this.open(null));
    this.actions.detail = this.detail;
    this.sitrep = new Sitrep(() => ({
      operation: this.store.scope.operation,
      asOf: this.asOf === null ? null : new Date(this.asOf).toISOString(),
    }));
  }

  async start(): Promise<void> {
    this.draw();
    this.connect();
    try {
      await load.fill(this.store);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      fill(this.pastNote, explain(error));
      this.pastNote.hidden = false;
      if (error.passing) setTimeout(() => location.reload(), 5_000);
      return;
    }
    this.filled = true;
    this.flush();
    this.refreshAll();
    void this.askUnplaced();
    const incident = new URLSearchParams(location.search).get("incident");
    if (incident !== null) this.detail.show(incident);
    if (this.asOf !== null) void this.goBack(this.asOf);
    await this.loadMap();
  }

  private draw(): void {
    const tabs = [...LISTS, "map" as const].map((name, at) =>
      h("button", { type: "button", "data-view": name, onclick: () => this.view(name) }, h("kbd", { "aria-hidden": "true" }, String(at + 1)), t(`${name}.tab`)), // prettier-ignore
    );
    fill(
      this.app,
      this.store.scope.exercise && h("p", { class: "exercise" }, t("exercise")),
      this.header.box,
      this.pastNote,
      h(
        "main",
        { class: "panes", "data-view": "incidents" },
        this.queues.incidents.box,
        h("div", { class: "second" }, this.queues.needs.box, h("div", { class: "third" }, this.queues.drafts.box, this.queues.unplaced.box)), // prettier-ignore
        h("div", { class: "mapside" }, h("div", { class: "mapbox" }, this.mapBox, legend()), this.timebar.box),
        this.detail.box,
      ),
      h("nav", { class: "tabs screen", "aria-label": t("tabs") }, tabs),
      this.desk.done.box,
      this.sitrep.box,
    );
    this.header.operationStatus(this.operation ?? undefined);
    addEventListener("keydown", (event) => this.key(event));
    addEventListener("popstate", () => {
      const query = new URLSearchParams(location.search);
      this.filters = fromQuery(query);
      this.detail.show(query.get("incident"));
      this.refreshAll();
    });
    setInterval(() => this.tick(), 1_000);
    setInterval(() => this.refreshAll(), AGES_MS);
    this.view("incidents");
  }

  private async loadMap(): Promise<void> {
    const [{ BoardMap }, settings] = await again(() =>
      Promise.all([
        import("./map.ts"),
        fetch("/v1/page-settings").then((answer) => answer.json() as Promise<{ tiles: { url: string; attribution: string } | null }>), // prettier-ignore
      ]),
    );
    const map: BoardMap = new BoardMap(this.mapBox, this.store, {
      opened: (id) => this.open(id),
      tiles: settings.tiles,
      area: this.operation?.bbox ?? null,
      origin: (responder, lot) => this.origins.get(responder ?? lot ?? "") ?? null,
    });
    this.desk.map = map;
    const credit = settings.tiles?.attribution ?? "";
    this.mapBox.after(h("p", { class: "credit" }, [credit, t("map.credit")].filter(Boolean).join(" · ")));
    new ResizeObserver(() => map.resize()).observe(this.mapBox);
    this.refreshAll();
    void this.askOrigins();
  }

  /** Where those on the way set out from: the middle of the cell of their home, or the store of the stock. */
  private async askOrigins(): Promise<void> {
    const wanted = [...this.store.assignments.values()].filter(({ state }) => state === "started");
    const strangers = wanted.filter(({ responder, lot }) => !this.origins.has(responder ?? lot ?? ""));
    await Promise.all(
      strangers.slice(0, 200).map(async ({ responder, lot }) => {
        const path = responder !== null ? `/v1/responders/${responder}` : `/v1/resources/${lot}`;
        try {
          const found = await load.one(path);
          const point = found.home_point ?? found.location;
          if (point?.lon != null && point.lat !== null) this.origins.set(responder ?? lot ?? "", [point.lon, point.lat]);
        } catch (error) {
          if (!(error instanceof Refused)) throw error; // a responder may be gone, or not for this role to see
        }
      }),
    );
    if (strangers.length > 0) this.showMap();
  }

  // ------------------------------------------------------------------------------------------------ the stream

  private connect(): void {
    const query = this.store.scope.operation === null ? "" : `?operation=${this.store.scope.operation}`;
    this.stream = new Stream({
      path: `/v1/stream${query}`,
      after: null,
      onMessages: (messages) => this.take(messages),
      onState: (state: State) => {
        if (state === "denied") location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`); // prettier-ignore
        this.tick();
      },
    });
  }

  private take(messages: Message[]): void {
    if (messages.some(({ event }) => event === "reset")) {
      // The log does not know where we were: what we have may lack something, so all of it is fetched anew.
      void load.fill(this.store).then(() => this.refreshAll());
    }
    this.pending.push(...messages);
    if (this.gathering === 0) this.gathering = window.setTimeout(() => this.flush(), GATHER_MS);
  }

  private flush(): void {
    this.gathering = 0;
    if (!this.filled) return;
    const messages = this.pending;
    this.pending = [];
    if (messages.length === 0) return;
    const changed = this.store.apply(messages);
    this.tell(messages);
    this.refresh(changed);
  }

  /** Let the open incident know what happened to it, and by whom. */
  private tell(messages: Message[]): void {
    const id = this.detail.id;
    if (id === null || this.asOf !== null) return;
    for (const message of messages) {
      if (!message.data.includes(id)) continue;
      const event = JSON.parse(message.data) as CloudEvent;
      const by = event.data?.["by"];
      const decided = typeof by === "string" && isPerson(by) && by !== this.desk.me;
      this.detail.changed(
        decided
          ? {
              by,
              what: event.type.split(".").slice(event.subject === id ? 2 : 1, 3).join("_"),
              reason: typeof event.data?.["reason"] === "string" ? event.data["reason"] : null,
              time: event.time,
            }
          : null,
      );
    }
  }

  private refresh(changed: Set<Part>): void {
    if (changed.has("reports")) this.laterUnplaced();
    if (changed.has("sites")) void load.sites(this.store).then(() => this.showMap());
    if (changed.has("operations")) void load.operations().then((found) => this.header.operationStatus(found.find(({ id }) => id === this.operation?.id))); // prettier-ignore
    if (changed.has("assignments")) void this.askOrigins();
    if (changed.size > 0 && this.asOf === null) this.refreshAll();
  }

  private laterUnplaced(): void {
    if (this.askingPlaces !== 0) return;
    this.askingPlaces = window.setTimeout(() => {
      this.askingPlaces = 0;
      void this.askUnplaced();
    }, 1_000);
  }

  private async askUnplaced(): Promise<void> {
    try {
      this.waiting = (await load.unplaced(this.store)) ?? [];
    } catch (error) {
      if (!(error instanceof Refused)) throw error; // the next report asks again
    }
    this.queues.unplaced.show(this.waiting);
  }

  private tick(): void {
    if (this.stream !== null) this.header.freshness(this.stream.state, this.stream.heard, Date.now());
  }

  // ------------------------------------------------------------------------------------------------- what is shown

  private refreshAll(): void {
    const store = this.past ?? this.store;
    const now = this.asOf ?? Date.now();
    this.shown = queue(store, this.filters, now);
    this.queues.incidents.show(this.shown);
    const label = (need: Need): string => what(need);
    const open = unmet(this.store, this.filters, label);
    this.queues.needs.show(open);
    this.queues.drafts.show(drafts(this.store, this.filters, label));
    this.queues.mark(this.detail.id);
    this.header.filters(this.filters);
    this.header.warnings(this.store.warnings.size);
    this.timebar.hours(this.filters.hours);
    this.timebar.draw(this.store.incidents.values(), Date.now());
    let standing = 0;
    let risk = 0;
    const areas = new Set<string>();
    for (const incident of store.incidents.values()) {
      if (incident.admin?.startsWith("kemendagri:")) {
        const code = incident.admin.slice(11);
        areas.add(code.slice(0, 2));
        if (code.length > 2) areas.add(code.slice(0, 5));
      }
      if (incident.status !== "open") continue;
      standing++;
      if (incident.severity === 4) risk++;
    }
    this.header.areas(areas, this.filters.area);
    this.header.counts(standing, risk, open.reduce((sum, need) => sum + need.ledger.open, 0));
    this.showMap();
  }

  private showMap(): void {
    this.desk.map?.show(this.past ?? this.store, this.shown, `${JSON.stringify(this.filters)}${this.asOf ?? ""}`);
  }

  /** Show what was known at an instant; null: what is known now. */
  private async goBack(instant: number | null): Promise<void> {
    this.asOf = instant;
    const who = session();
    this.desk.edits = who !== null && ["operator", "admin"].includes(who.role) && instant === null;
    this.remember({ as_of: instant === null ? "" : new Date(instant).toISOString() });
    this.timebar.set(instant, Date.now());
    document.documentElement.classList.toggle("in-past", instant !== null);
    if (instant === null) {
      this.past = null;
      this.pastNote.hidden = true;
      this.detail.refresh();
      this.refreshAll();
      return;
    }
    this.pastNote.hidden = false;
    fill(this.pastNote, t("loading"));
    try {
      const features = await load.incidentsAsOf(this.store, new Date(instant).toISOString());
      if (this.asOf !== instant) return;
      const past = new Store(this.store.scope);
      for (const feature of features) {
        const incident = incidentOfFeature(feature);
        // The order of the queue is of now; what it was then the log does not say.
        past.putIncident({ ...incident, priority: this.store.incidents.get(incident.id)?.priority ?? 0 });
      }
      this.past = past;
      fill(
        this.pastNote,
        h("strong", null, t("past.says", { time: when(instant) })),
        ` ${t("past.needs")} `,
        h("button", { type: "button", onclick: () => this.sitrep.open() }, t("past.sitrep")),
        h("button", { type: "button", class: "first", onclick: () => void this.goBack(null) }, t("past.back")),
      );
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      fill(this.pastNote, explain(error), h("button", { type: "button", onclick: () => void this.goBack(null) }, t("past.back"))); // prettier-ignore
    }
    this.refreshAll();
  }

  private open(id: string | null): void {
    this.remember({ incident: id ?? "" }, true);
    const before = this.detail.id;
    this.detail.show(id);
    this.queues.mark(id);
    this.desk.map?.select(id);
    document.documentElement.classList.toggle("has-detail", id !== null);
    if (id === null && before !== null) {
      const row = this.queues.incidents.rows.querySelector<HTMLElement>(`[data-id="${CSS.escape(before)}"]`);
      row?.focus();
    }
  }

  private openNeed(need: Need): void {
    if (need.incident !== null) this.open(need.incident);
    else if (need.status === "draft" && this.desk.edits) this.actions.declare(need);
  }

  // ------------------------------------------------------------------------------------------ address, views, keys

  private filter(filters: Filters): void {
    this.filters = filters;
    history.replaceState(null, "", `?${toQuery(filters, new URLSearchParams(location.search))}`);
    this.refreshAll();
  }

  private remember(change: Record<string, string>, push = false): void {
    const query = new URLSearchParams(location.search);
    for (const [name, value] of Object.entries(change)) {
      if (value === "") query.delete(name);
      else query.set(name, value);
    }
    const next = `?${query}`;
    if (next === location.search || (next === "?" && location.search === "")) return;
    if (push) history.pushState(null, "", next);
    else history.replaceState(null, "", next);
  }

  private go(change: Record<string, string>): void {
    const query = new URLSearchParams(location.search);
    for (const [name, value] of Object.entries(change)) query.set(name, value);
    for (const [name, value] of [...query]) if (value === "" && name !== "operation") query.delete(name);
    location.search = query.toString();
  }

  /** Which part a narrow page shows; on a wide one all are there, and this is where the keys go. */
  private view(name: ListName | "map"): void {
    const panes = this.app.querySelector<HTMLElement>("main.panes");
    if (panes !== null) panes.dataset["view"] = name;
    for (const tab of this.app.querySelectorAll("nav.tabs button")) {
      if (tab.getAttribute("data-view") === name) tab.setAttribute("aria-current", "page");
      else tab.removeAttribute("aria-current");
    }
    if (name === "map") this.desk.map?.resize();
  }

  private key(event: KeyboardEvent): void {
    const target = event.target as HTMLElement;
    if (event.key === "Escape" && document.querySelector("dialog[open]") === null) {
      if (target === this.header.search) target.blur();
      else if (this.detail.id !== null) this.open(null);
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName) || document.querySelector("dialog[open]") !== null) return;
    const list = (target.closest<HTMLElement>("[data-list]")?.dataset["list"] ?? "incidents") as ListName;
    const view = { "1": "incidents", "2": "needs", "3": "drafts", "4": "unplaced" }[event.key] as ListName | undefined;
    if (event.key === "j" || event.key === "k") this.queues.list(list).step(event.key === "j" ? 1 : -1);
    else if (view !== undefined) {
      this.view(view);
      this.queues.list(view).step(0);
    } else if (event.key === "5") {
      this.view("map");
      this.mapBox.focus();
    } else if (event.key === "/") this.header.search.focus();
    else if (event.key === "?") helpDialog();
    else return;
    event.preventDefault();
  }
}
