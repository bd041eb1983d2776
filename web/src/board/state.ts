// What the board knows: a copy of what the lists gave, kept up to date by the events of the stream. An event carries
// the whole state after the change, so the newest one of a subject is all that counts.

import type { Message } from "../common/stream.ts";

export interface People {
  affected: number | null;
  displaced: number | null;
  injured: number | null;
  dead: number | null;
  missing: number | null;
}

/** Times are milliseconds since 1970. */
export interface Incident {
  id: string;
  title: string;
  hazard: string | null;
  severity: number;
  status: "open" | "closed" | "merged";
  evidence: string;
  lon: number | null;
  lat: number | null;
  admin: string | null;
  place: string | null;
  reports: number;
  people: Partial<People>;
  priority: number;
  opened: number;
  updated: number;
  attendBy: number | null;
  disputed: string[];
  sensitivity: string | null;
  drill: boolean;
  operation: string;
  exercise: boolean;
}

export interface Ledger {
  needed: number;
  open: number;
  offered: number;
  committed: number;
  in_transit: number;
  delivered: number;
  confirmed: number;
  cancelled: number;
}

export interface Need {
  id: string;
  incident: string | null;
  item: string | null;
  skill: string | null;
  unit: string;
  quantity: number;
  severity: number;
  status: "draft" | "declared" | "withdrawn";
  place: string | null;
  lon: number | null;
  lat: number | null;
  admin: string | null;
  operation: string;
  exercise: boolean;
  /** Since when it waits. */
  since: number;
  updated: number;
  reason: string | null;
  sensitivity: string | null;
  ledger: Ledger;
}

export interface Assignment {
  id: string;
  need: string;
  incident: string | null;
  responder: string | null;
  lot: string | null;
  organisation: string | null;
  what: string;
  quantity: number;
  state: string;
  since: number;
  exercise: boolean;
  operation: string;
}

export interface Warning {
  id: string;
  severity: number;
  state: string;
  texts: { language: string; event: string; headline?: string | null; description?: string | null; instruction?: string | null }[];
  sender: string;
  expires: number;
  polygons: [number, number][][];
  exercise: boolean;
}

export interface Site {
  id: string;
  name: string;
  kind: string;
  lon: number | null;
  lat: number | null;
  people: number | null;
  capacity: number | null;
  alarm: string;
}

export interface Scope {
  /** Null: all live operations. */
  operation: string | null;
  exercise: boolean;
}

/** The names of what changed by a batch of events; the views draw themselves anew by it. */
export type Part = "incidents" | "needs" | "assignments" | "warnings" | "sites" | "reports" | "operations";

export class Store {
  readonly incidents = new Map<string, Incident>();
  readonly needs = new Map<string, Need>();
  readonly assignments = new Map<string, Assignment>();
  readonly warnings = new Map<string, Warning>();
  readonly sites = new Map<string, Site>();
  /** Grows with each change of an incident's place, severity or standing: when to group points anew. */
  shape = 0;

  constructor(readonly scope: Scope) {}

  covers(operation: unknown, exercise: unknown): boolean {
    return this.scope.operation === null ? exercise !== true : operation === this.scope.operation;
  }

  putIncident(incident: Incident): void {
    const before = this.incidents.get(incident.id);
    if (before !== undefined && before.updated > incident.updated) return;
    if (
      before === undefined ||
      before.lon !== incident.lon ||
      before.lat !== incident.lat ||
      before.severity !== incident.severity ||
      before.status !== incident.status
    ) {
      this.shape++;
    }
    this.incidents.set(incident.id, incident);
  }

  /** Take in what the stream brought; says which parts changed, and which subjects people decided on. */
  apply(messages: readonly Message[]): Set<Part> {
    const changed = new Set<Part>();
    for (const message of messages) {
      const kind = message.event.split(".")[1];
      const apply = kind === undefined ? undefined : APPLY[kind];
      if (apply === undefined) continue;
      const event = JSON.parse(message.data) as CloudEvent;
      if (!this.covers(event.operation, event.exercise) && kind !== "warning") continue;
      const part = apply(this, event);
      if (part !== null) changed.add(part);
    }
    return changed;
  }
}

/** A CloudEvent as the stream gives it. */
export interface CloudEvent {
  type: string;
  time: string;
  subject: string;
  operation?: string;
  exercise?: boolean;
  data: Record<string, unknown> | null;
}

const APPLY: Record<string, (store: Store, event: CloudEvent) => Part | null> = {
  incident(store, event) {
    if (event.data === null) return null;
    store.putIncident(incidentOfEvent(event.data, event));
    return "incidents";
  },
  need(store, event) {
    if (event.data === null) return null;
    const need = needOfEvent(event.data, event);
    const before = store.needs.get(need.id);
    if (before !== undefined) {
      if (before.updated > need.updated) return null;
      // The ledger has events of its own; until matching has told of a need, all of it is open.
      need.ledger = before.ledger.needed > 0 || before.status !== "draft" ? before.ledger : need.ledger;
      need.since = before.status === need.status ? before.since : need.since;
    }
    store.needs.set(need.id, need);
    return "needs";
  },
  ledger(store, event) {
    const need = store.needs.get(event.subject);
    if (need === undefined || event.data === null) return null;
    need.ledger = event.data as unknown as Ledger;
    return "needs";
  },
  assignment(store, event) {
    if (event.data === null) return null;
    const found = assignmentOfEvent(event.data, event);
    if (found.state === "confirmed" || found.state === "abandoned") store.assignments.delete(found.id);
    else store.assignments.set(found.id, found);
    return "assignments";
  },
  warning(store, event) {
    if (event.data === null || event.exercise !== store.scope.exercise) return null;
    const found = warningOfEvent(event.data);
    if (found.state === "active") store.warnings.set(found.id, found);
    else store.warnings.delete(found.id);
    return "warnings";
  },
  site: () => "sites",
  report: () => "reports",
  operation: () => "operations",
  offer: () => "needs",
};

type Fields = Record<string, unknown>;

const time = (value: unknown): number => (typeof value === "string" ? Date.parse(value) : 0);
const textOr = (value: unknown): string | null => (typeof value === "string" ? value : null);
const numberOr = (value: unknown): number | null => (typeof value === "number" ? value : null);

function incidentOfEvent(data: Fields, event: CloudEvent): Incident {
  const point = data["point"] as { lon: number; lat: number } | null | undefined;
  return {
    ...incidentFields(data),
    id: String(data["incident_id"]),
    lon: point?.lon ?? null,
    lat: point?.lat ?? null,
    operation: event.operation ?? "",
    exercise: event.exercise === true,
  };
}

/** An incident of a GeoJSON feature, of the list or of what was known at an earlier instant. */
export function incidentOfFeature(feature: {
  id: string;
  geometry: { coordinates: [number, number] } | null;
  properties: Fields;
}): Incident {
  const data = feature.properties;
  const people = data["people"] ?? data; // the features of the log have the counts beside the rest
  return {
    ...incidentFields({ ...data, people }),
    id: feature.id,
    lon: feature.geometry?.coordinates[0] ?? null,
    lat: feature.geometry?.coordinates[1] ?? null,
    attendBy: data["attended_at"] ? null : time(data["attend_by"]) || null,
    operation: String(data["operation"] ?? ""),
    exercise: data["exercise"] === true,
  };
}

function incidentFields(data: Fields): Omit<Incident, "id" | "lon" | "lat" | "operation" | "exercise"> {
  return {
    title: textOr(data["title"]) ?? "",
    hazard: textOr(data["hazard"]),
    severity: numberOr(data["severity"]) ?? 0,
    status: data["status"] as Incident["status"],
    evidence: textOr(data["evidence"]) ?? "reported",
    admin: textOr(data["admin"]),
    place: textOr(data["place"]),
    reports: numberOr(data["reports"]) ?? 0,
    people: (data["people"] ?? {}) as Partial<People>,
    priority: numberOr(data["priority"]) ?? 0,
    opened: time(data["opened_at"]),
    updated: time(data["updated_at"]),
    attendBy: time(data["attend_by"]) || null,
    disputed: (data["disputed"] ?? []) as string[],
    sensitivity: textOr(data["sensitivity"]),
    drill: data["exercise_suggested"] === true,
  };
}

function needOfEvent(data: Fields, event: CloudEvent): Need {
  const point = data["point"] as { lon: number; lat: number } | null | undefined;
  return {
    ...needFields(data),
    id: String(data["need_id"]),
    incident: textOr(data["incident_id"]),
    place: textOr(data["place"]),
    admin: textOr(data["admin"]),
    lon: point?.lon ?? null,
    lat: point?.lat ?? null,
    operation: event.operation ?? "",
    exercise: event.exercise === true,
    since: time(data["declared_at"]) || time(event.time),
    updated: time(event.time),
    ledger: allOpen(Number(data["quantity"]), data["status"] === "declared"),
  };
}

function allOpen(quantity: number, declared: boolean): Ledger {
  const open = declared ? quantity : 0;
  return { needed: open, open, offered: 0, committed: 0, in_transit: 0, delivered: 0, confirmed: 0, cancelled: 0 };
}

export function needOfJson(data: Fields): Need {
  const location = (data["location"] ?? {}) as Fields;
  return {
    ...needFields(data),
    id: String(data["id"]),
    incident: textOr(data["incident"]),
    place: textOr(location["place"]),
    admin: textOr(location["admin"]),
    lon: numberOr(location["lon"]),
    lat: numberOr(location["lat"]),
    operation: String(data["operation"]),
    exercise: data["exercise"] === true,
    since: time(data["declared_at"]) || time(data["updated_at"]),
    updated: time(data["updated_at"]),
    ledger: data["ledger"] as Ledger,
  };
}

function needFields(
  data: Fields,
): Pick<Need, "item" | "skill" | "unit" | "quantity" | "severity" | "status" | "reason" | "sensitivity"> {
  return {
    item: textOr(data["item"]),
    skill: textOr(data["skill"]),
    unit: String(data["unit"]),
    quantity: Number(data["quantity"]),
    severity: numberOr(data["severity"]) ?? 0,
    status: data["status"] as Need["status"],
    reason: textOr(data["reason"]),
    sensitivity: textOr(data["sensitivity"]),
  };
}

function assignmentOfEvent(data: Fields, event: CloudEvent): Assignment {
  return {
    ...assignmentFields(data),
    since: time(event.time),
    exercise: event.exercise === true,
    operation: event.operation ?? "",
    incident: textOr(data["incident_id"]),
  };
}

export function assignmentOfJson(data: Fields): Assignment {
  return {
    ...assignmentFields(data),
    since: time(data["started_at"]) || time(data["made_at"]),
    exercise: data["exercise"] === true,
    operation: String(data["operation"]),
    incident: textOr(data["incident_id"]),
  };
}

function assignmentFields(data: Fields): Omit<Assignment, "since" | "exercise" | "operation" | "incident"> {
  return {
    id: String(data["assignment_id"]),
    need: String(data["need_id"]),
    responder: textOr(data["responder_id"]),
    lot: textOr(data["lot_id"]),
    organisation: textOr(data["organisation"]),
    what: textOr(data["item"]) ?? textOr(data["skill"]) ?? "",
    quantity: Number(data["quantity"]),
    state: String(data["state"]),
  };
}

function warningOfEvent(data: Fields): Warning {
  const area = (data["area"] ?? {}) as Fields;
  return { ...warningFields(data), id: String(data["warning_id"]), polygons: (area["polygons"] ?? []) as Warning["polygons"] };
}

export function warningOfFeature(feature: {
  id: string;
  geometry: { type: string; coordinates?: unknown; geometries?: { type: string; coordinates: unknown }[] } | null;
  properties: Fields;
}): Warning {
  const shapes = feature.geometry === null ? [] : (feature.geometry.geometries ?? [feature.geometry]);
  const polygons = shapes
    .filter((shape) => shape.type === "MultiPolygon")
    .flatMap((shape) => (shape.coordinates as [number, number][][][]).map((rings) => rings[0] ?? []));
  return { ...warningFields(feature.properties), id: feature.id, polygons };
}

function warningFields(data: Fields): Omit<Warning, "id" | "polygons"> {
  const message = (data["message"] ?? {}) as Fields;
  return {
    severity: numberOr(data["severity"]) ?? 1,
    state: String(data["state"]),
    texts: (data["texts"] ?? []) as Warning["texts"],
    sender: textOr(data["sender_name"]) ?? textOr(message["sender"]) ?? "",
    expires: time(data["expires_at"]),
    exercise: data["exercise"] === true || data["status"] === "exercise",
  };
}
