// What is shown, kept in the address: a link shows a colleague what I see.

import type { Incident, Need, Store } from "./state.ts";

export interface Filters {
  hazard: string;
  /** At least this severe; 0: all. */
  severity: number;
  /** Kemendagri code of a province or regency, and all within it. */
  area: string;
  /** Changed within so many hours; 0: at any time. */
  hours: number;
  status: "open" | "closed" | "all";
  text: string;
}

export const NO_FILTERS: Filters = { hazard: "", severity: 0, area: "", hours: 0, status: "open", text: "" };

/** The filters of an address; what makes no sense there is left out. */
export function fromQuery(query: URLSearchParams): Filters {
  const severity = Number(query.get("severity") ?? 0);
  const hours = Number(query.get("hours") ?? 0);
  const status = query.get("status");
  return {
    hazard: query.get("hazard") ?? "",
    severity: [1, 2, 3, 4].includes(severity) ? severity : 0,
    area: query.get("area") ?? "",
    hours: hours > 0 && hours <= 8760 ? hours : 0,
    status: status === "closed" || status === "all" ? status : "open",
    text: query.get("q") ?? "",
  };
}

/** Put filters into an address, keeping what else stands there; a filter that is off leaves no trace. */
export function toQuery(filters: Filters, query: URLSearchParams): URLSearchParams {
  const next = new URLSearchParams(query);
  const named: [string, string][] = [
    ["hazard", filters.hazard],
    ["severity", filters.severity ? String(filters.severity) : ""],
    ["area", filters.area],
    ["hours", filters.hours ? String(filters.hours) : ""],
    ["status", filters.status === "open" ? "" : filters.status],
    ["q", filters.text],
  ];
  for (const [name, value] of named) {
    if (value === "") next.delete(name);
    else next.set(name, value);
  }
  return next;
}

/** Whether an area code lies within an area: `kemendagri:32.04.11` within `32.04`. */
export function within(admin: string | null, area: string): boolean {
  if (area === "") return true;
  if (admin === null) return false;
  const code = admin.slice(admin.indexOf(":") + 1);
  return code === area || code.startsWith(`${area}.`);
}

export function passes(incident: Incident, filters: Filters, now: number): boolean {
  if (incident.status === "merged") return false;
  if (filters.status !== "all" && incident.status !== filters.status) return false;
  if (filters.hazard !== "" && incident.hazard !== filters.hazard) return false;
  if (incident.severity < filters.severity) return false;
  if (filters.hours > 0 && incident.updated < now - filters.hours * 3_600_000) return false;
  if (!within(incident.admin, filters.area)) return false;
  return filters.text === "" || matches(filters.text, incident.title, incident.place);
}

function matches(wanted: string, ...texts: (string | null)[]): boolean {
  const words = wanted.toLowerCase().split(/\s+/);
  const text = texts.join(" ").toLowerCase();
  return words.every((word) => text.includes(word));
}

/** Incidents in the order in which somebody should look at them. */
export function queue(store: Store, filters: Filters, now: number): Incident[] {
  const found: Incident[] = [];
  for (const incident of store.incidents.values()) if (passes(incident, filters, now)) found.push(incident);
  return found.sort(
    (a, b) => b.priority - a.priority || b.severity - a.severity || b.updated - a.updated || (a.id < b.id ? -1 : 1),
  );
}

/** Needs of which something is missing still (open, or only asked for), the most urgent first. */
export function unmet(store: Store, filters: Filters, label: (need: Need) => string): Need[] {
  return needs(store, filters, label, (need) => need.status === "declared" && need.ledger.open + need.ledger.offered > 0);
}

export function drafts(store: Store, filters: Filters, label: (need: Need) => string): Need[] {
  return needs(store, filters, label, (need) => need.status === "draft");
}

function needs(
  store: Store,
  filters: Filters,
  label: (need: Need) => string,
  wanted: (need: Need) => boolean,
): Need[] {
  const found: Need[] = [];
  for (const need of store.needs.values()) {
    if (!wanted(need) || need.severity < filters.severity || !within(need.admin, filters.area)) continue;
    const incident = need.incident === null ? undefined : store.incidents.get(need.incident);
    if (filters.hazard !== "" && incident?.hazard !== filters.hazard) continue;
    if (filters.text !== "" && !matches(filters.text, label(need), need.place, incident?.title ?? null)) continue;
    found.push(need);
  }
  return found.sort(
    (a, b) =>
      b.severity - a.severity ||
      Number(b.ledger.open > 0) - Number(a.ledger.open > 0) ||
      a.since - b.since ||
      (a.id < b.id ? -1 : 1),
  );
}
