import assert from "node:assert/strict";
import { test } from "node:test";
import { drafts, fromQuery, NO_FILTERS, passes, queue, toQuery, unmet, within } from "../src/board/filters.ts";
import { unfold } from "../src/board/rings.ts";
import { type Incident, incidentOfFeature, type Need, needOfJson, Store } from "../src/board/state.ts";
import type { Message } from "../src/common/stream.ts";

const NOW = Date.parse("2026-11-24T12:00:00Z");
const ALL = { operation: null, exercise: false };

function incident(id: string, more: Record<string, unknown> = {}): Incident {
  return incidentOfFeature({
    id,
    geometry: { coordinates: [106.8, -6.2] },
    properties: {
      title: `Banjir ${id}`, hazard: "flood", severity: 3, status: "open", priority: 50, reports: 1,
      opened_at: "2026-11-24T10:00:00Z", updated_at: "2026-11-24T11:00:00Z", operation: "standing", ...more,
    },
  }); // prettier-ignore
}

function need(id: string, more: Record<string, unknown> = {}): Need {
  const ledger = { needed: 5, open: 5, offered: 0, committed: 0, in_transit: 0, delivered: 0, confirmed: 0, cancelled: 0 };
  return needOfJson({
    id, item: "boat", unit: "unit", quantity: 5, severity: 3, status: "declared", operation: "standing", ledger,
    updated_at: "2026-11-24T11:00:00Z", declared_at: "2026-11-24T11:00:00Z", ...more,
  }); // prettier-ignore
}

function message(type: string, subject: string, data: Record<string, unknown>, more: Record<string, unknown> = {}): Message {
  const event = { type, subject, time: "2026-11-24T11:30:00Z", operation: "standing", exercise: false, data, ...more };
  return { id: "1", event: type, data: JSON.stringify(event) };
}

test("filters go into the address and come back the same; what is off leaves no trace", () => {
  const filters = { hazard: "flood", severity: 3, area: "32.04", hours: 6, status: "all", text: "air pasang" } as const;
  const query = toQuery(filters, new URLSearchParams("operation=x"));
  assert.equal(query.get("operation"), "x");
  assert.deepEqual(fromQuery(query), filters);
  assert.equal(toQuery(NO_FILTERS, query).toString(), "operation=x");
});

test("an address that makes no sense is no filter", () => {
  assert.deepEqual(fromQuery(new URLSearchParams("severity=9&hours=-1&status=gone")), NO_FILTERS);
});

test("an area holds what lies within it, and not what only begins with the same figures", () => {
  assert.ok(within("kemendagri:32.04.11", "32.04"));
  assert.ok(within("kemendagri:32.04", "32"));
  assert.ok(!within("kemendagri:32.041", "32.04"));
  assert.ok(!within(null, "32"));
});

test("the queue has the most urgent first, without what is merged or filtered away", () => {
  const store = new Store(ALL);
  store.putIncident(incident("a", { priority: 10, place: "Dayeuhkolot" }));
  store.putIncident(incident("b", { priority: 90 }));
  store.putIncident(incident("c", { priority: 95, status: "merged" }));
  store.putIncident(incident("d", { priority: 99, status: "closed" }));
  assert.deepEqual(queue(store, NO_FILTERS, NOW).map(({ id }) => id), ["b", "a"]); // prettier-ignore
  assert.deepEqual(queue(store, { ...NO_FILTERS, status: "all" }, NOW).map(({ id }) => id), ["d", "b", "a"]); // prettier-ignore
  assert.deepEqual(queue(store, { ...NO_FILTERS, text: "banjir dayeuh" }, NOW).map(({ id }) => id), ["a"]); // prettier-ignore
});

test("an hour is an hour", () => {
  assert.ok(passes(incident("a"), { ...NO_FILTERS, hours: 1 }, NOW));
  assert.ok(!passes(incident("a"), { ...NO_FILTERS, hours: 1 }, NOW + 1));
});

test("of a need that is met nothing is shown; one that is only asked for stands behind one that is open", () => {
  const store = new Store(ALL);
  const met = { needed: 5, open: 0, offered: 0, committed: 5, in_transit: 0, delivered: 0, confirmed: 0, cancelled: 0 };
  const asked = { ...met, committed: 0, offered: 5 };
  for (const each of [need("met", { ledger: met }), need("asked", { ledger: asked }), need("open"), need("draft", { status: "draft" })]) {
    store.needs.set(each.id, each);
  }
  const label = (): string => "perahu";
  assert.deepEqual(unmet(store, NO_FILTERS, label).map(({ id }) => id), ["open", "asked"]); // prettier-ignore
  assert.deepEqual(drafts(store, NO_FILTERS, label).map(({ id }) => id), ["draft"]); // prettier-ignore
});

test("an event that is older than what the list gave changes nothing", () => {
  const store = new Store(ALL);
  store.putIncident(incident("a", { severity: 4, updated_at: "2026-11-24T11:59:00Z" }));
  const data = { incident_id: "a", severity: 1, status: "open", updated_at: "2026-11-24T11:58:00Z" };
  store.apply([message("gotong.incident.updated.v1", "a", data)]);
  assert.equal(store.incidents.get("a")?.severity, 4);
  store.apply([message("gotong.incident.updated.v1", "a", { ...data, updated_at: "2026-11-24T12:01:00Z" })]);
  assert.equal(store.incidents.get("a")?.severity, 1);
});

test("a drill's events do not come into a board of life, nor life's into a drill", () => {
  const live = new Store(ALL);
  const data = { incident_id: "a", severity: 1, status: "open", updated_at: "2026-11-24T11:58:00Z" };
  live.apply([message("gotong.incident.opened.v1", "a", data, { operation: "drill", exercise: true })]);
  assert.equal(live.incidents.size, 0);
  const drill = new Store({ operation: "drill", exercise: true });
  drill.apply([message("gotong.incident.opened.v1", "a", data)]);
  assert.equal(drill.incidents.size, 0);
});

test("the ledger moves by its own events, and an amended need keeps it", () => {
  const store = new Store(ALL);
  store.needs.set("n", need("n"));
  const ledger = { needed: 5, open: 2, offered: 0, committed: 3, in_transit: 0, delivered: 0, confirmed: 0, cancelled: 0 };
  assert.deepEqual([...store.apply([message("gotong.ledger.changed.v1", "n", ledger)])], ["needs"]);
  const data = { need_id: "n", item: "boat", unit: "unit", quantity: 5, severity: 4, status: "declared" };
  store.apply([message("gotong.need.amended.v1", "n", data)]);
  assert.equal(store.needs.get("n")?.ledger.committed, 3);
  assert.equal(store.needs.get("n")?.severity, 4);
});

test("a redacted event is passed over", () => {
  const store = new Store(ALL);
  store.apply([message("gotong.incident.updated.v1", "a", null as unknown as Record<string, unknown>)]);
  assert.equal(store.incidents.size, 0);
});

test("a ring is added up from its steps, and the equator lies in the middle of the world", () => {
  const { points, box } = unfold([0, 0, 200, 0, 0, 200]);
  assert.equal(points[0], 0.5);
  assert.equal(points[1], 0.5);
  assert.ok(Math.abs((points[2] ?? 0) - (0.5 + 1 / 360)) < 1e-9);
  assert.ok((points[5] ?? 1) < 0.5);
  assert.equal(box[0], 0.5);
});
