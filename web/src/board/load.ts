// The lists that the board begins with; from then on it lives on the stream.

import { call, Refused } from "../common/api.ts";
import {
  assignmentOfJson,
  incidentOfFeature,
  needOfJson,
  type Site,
  type Store,
  warningOfFeature,
} from "./state.ts";

interface Page {
  links: { rel: string; href: string }[];
}

type Fields = Record<string, unknown>;
type Feature = { id: string; geometry: never; properties: Fields };

export interface Operation {
  id: string;
  title: string;
  timezone: string;
  exercise: boolean;
  open: boolean;
  lead: string | null;
  areas: string[];
  bbox: [number, number, number, number] | null;
  status: { declared: string; level: string | null; decree: string | null; until: string | null } | null;
}

export interface Report {
  report_id: string;
  title: string | null;
  text: string | null;
  location: { lon?: number; lat?: number; place?: string; admin?: string } | null;
  hazard: string | null;
  severity: number | null;
  observed_at: string;
  received_at: string;
  origin: string;
  reporter_kind: string;
  score: number | null;
  parts: Record<string, number> | null;
  copy_of: string | null;
  linked_by: string | null;
  media: { url?: string }[] | null;
  bulk: boolean;
  overdue: boolean;
  operation: string;
}

/** All pages of a list, one after the other. */
export async function all<T>(path: string, name: string, most = 20_000): Promise<T[]> {
  const found: T[] = [];
  let next: string | undefined = path;
  while (next !== undefined && found.length < most) {
    const page: Page & Record<string, T[]> = await call(next);
    found.push(...(page[name] ?? []));
    const link: string | undefined = page.links.find(({ rel }) => rel === "next")?.href;
    // The address behind a proxy may be another one; the path is what counts.
    next = link === undefined ? undefined : link.replace(/^https?:\/\/[^/]+/, "");
  }
  return found;
}

export function scoped(store: Store, path: string, extra: Record<string, string> = {}): string {
  const query = new URLSearchParams(extra);
  if (store.scope.operation !== null) query.set("operation", store.scope.operation);
  return `${path}?${query}`;
}

export async function operations(): Promise<Operation[]> {
  return all<Operation>("/v1/operations?open=true&limit=200", "operations");
}

/** Fill a store anew. */
export async function fill(store: Store): Promise<void> {
  await Promise.all([
    all<Feature>(scoped(store, "/v1/incidents", { sort: "priority", limit: "1000" }), "features").then((features) => {
      for (const feature of features) store.putIncident(incidentOfFeature(feature));
    }),
    Promise.all(
      ["declared", "draft"].map((status) =>
        all<Fields>(scoped(store, "/v1/needs", { status, limit: "1000" }), "needs").then((needs) => {
          for (const need of needs) store.needs.set(String(need["id"]), needOfJson(need));
        }),
      ),
    ),
    moving(store),
    warnings(store),
    sites(store),
  ]);
}

async function moving(store: Store): Promise<void> {
  await Promise.all(
    ["made", "started", "arrived"].map(async (state) => {
      const path = scoped(store, "/v1/assignments", { state, limit: "1000" });
      for (const found of (await allowed(all<Fields>(path, "assignments", 5000))) ?? []) {
        store.assignments.set(String(found["assignment_id"]), assignmentOfJson(found));
      }
    }),
  );
}

async function warnings(store: Store): Promise<void> {
  const path = `/v1/warnings?active&exercise=${store.scope.exercise}&limit=500`;
  for (const feature of await all<Feature>(path, "features", 2000)) {
    store.warnings.set(feature.id, warningOfFeature(feature));
  }
}

interface SiteJson {
  site_id: string;
  name: string;
  kind: string;
  location: { lon: number | null; lat: number | null };
  capacity: number | null;
  alarm: string;
  headcount: { people: number | null } | null;
}

export async function sites(store: Store): Promise<void> {
  const found = await all<SiteJson>(scoped(store, "/v1/sites", { status: "open", limit: "1000" }), "sites");
  store.sites.clear();
  for (const site of found) store.sites.set(site.site_id, siteOf(site));
}

function siteOf(site: SiteJson): Site {
  return {
    id: site.site_id,
    name: site.name,
    kind: site.kind,
    lon: site.location.lon,
    lat: site.location.lat,
    people: site.headcount?.people ?? null,
    capacity: site.capacity,
    alarm: site.alarm,
  };
}

/** The queue of reports that nobody could place; null where the role may not see it. */
export async function unplaced(store: Store): Promise<Report[] | null> {
  return allowed(all<Report>(scoped(store, "/v1/reports", { unplaced: "", limit: "200" }), "reports", 1000));
}

/** What was asked for; null where the role may not see it. */
async function allowed<T>(asked: Promise<T>): Promise<T | null> {
  try {
    return await asked;
  } catch (error) {
    if (error instanceof Refused && error.status === 403) return null;
    throw error;
  }
}

/** Incidents as they were known at an instant. */
export async function incidentsAsOf(store: Store, asOf: string): Promise<Feature[]> {
  const path = scoped(store, "/v1/features/collections/incidents/items", { as_of: asOf, limit: "10000" });
  return all<Feature>(path, "features", 10_000);
}

interface Placed {
  home_point?: { lon: number; lat: number } | null;
  location?: { lon: number | null; lat: number | null };
}

/** A responder or a lot, for where it sets out from. */
export async function one(path: string): Promise<Placed> {
  return call<Placed>(path);
}
