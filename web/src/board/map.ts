// The map beside the lists: groups of incidents that fall apart as one looks closer, warnings as areas, evacuation
// posts, and who is on the way. The base map comes with the page; a tile server lies under it where a setting names one.

import {
  control,
  divIcon,
  latLng,
  type LatLng,
  latLngBounds,
  type LeafletMouseEvent,
  Map as LeafletMap,
  type Marker,
  marker as markerOf,
  popup,
  tileLayer,
} from "leaflet";
import Supercluster from "supercluster";
import { again } from "../common/again.ts";
import { h } from "../common/dom.ts";
import { number, t } from "../common/i18n.ts";
import { level, severityMark, severityWord } from "../common/severity.ts";
import { Land } from "./land.ts";
import { type Drawn, Overlay } from "./overlay.ts";
import type { Incident, Store } from "./state.ts";
import { warningWords } from "./warnings.ts";

interface PointProperties {
  id: string;
  severity: number;
}

interface GroupProperties {
  worst: number;
}

const REGROUP_MS = 1_000;
const GROUP_UP_TO_ZOOM = 14;

export interface MapOptions {
  opened(id: string): void;
  tiles: { url: string; attribution: string } | null;
  /** West, south, east, north of the operation, where it has one. */
  area: [number, number, number, number] | null;
  /** Where a responder or a lot sets out from; null: not known. */
  origin(responder: string | null, lot: string | null): [number, number] | null;
}

export class BoardMap {
  readonly map: LeafletMap;
  private readonly overlay: Overlay;
  private index: Supercluster<PointProperties, GroupProperties> | null = null;
  private indexed = "";
  private indexedAt = 0;
  private later = 0;
  private shown: readonly Incident[] = [];
  private store: Store;
  private readonly groups = new Map<string, Marker>();
  private selected: string | null = null;
  private picking: ((point: [number, number] | null) => void) | null = null;
  private land: Land | null = null;
  private fitted = false;

  constructor(
    readonly box: HTMLElement,
    store: Store,
    private readonly options: MapOptions,
  ) {
    this.store = store;
    this.map = new LeafletMap(box, {
      attributionControl: false,
      zoomControl: false,
      zoomAnimation: false,
      fadeAnimation: false,
      markerZoomAnimation: false,
      worldCopyJump: true,
      minZoom: 3,
      maxZoom: 18,
      center: [-2.5, 118],
      zoom: 5,
    });
    control.zoom({ position: "topright", zoomInTitle: t("map.in"), zoomOutTitle: t("map.out") }).addTo(this.map);
    for (const [name, index] of [["base", 150], ["overlay", 420]] as const) {
      this.map.createPane(name).style.zIndex = String(index);
    }
    this.pane("overlay").style.pointerEvents = "none";
    this.overlay = new Overlay(this.map);
    if (options.tiles !== null) tileLayer(options.tiles.url, { maxZoom: 19 }).addTo(this.map);
    this.map.on("moveend", () => this.redraw());
    this.map.on("click", (event) => this.clicked(event));
    void this.drawBase();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.recolour());
  }

  private pane(name: string): HTMLElement {
    return this.map.getPane(name) ?? this.map.createPane(name);
  }

  private async drawBase(): Promise<void> {
    // The page is of use without its base map, so it comes after everything else.
    if (this.options.tiles !== null) return;
    const [land, areas, towns] = await again(() =>
      Promise.all([import("virtual:land"), import("virtual:area-points"), import("virtual:towns")]),
    );
    this.overlay.places = [
      ...Object.values(areas.default).map(([name, lon, lat]) => [name, lon, lat, 5, 7] as [string, number, number, number, number]), // prettier-ignore
      ...towns.default.map(([name, lon, lat, zoom]) => [name, lon, lat, zoom, 19] as [string, number, number, number, number]), // prettier-ignore
    ];
    this.land = new Land(this.map, this.pane("base"), land.default);
    this.redraw();
  }

  /** After the colours of the page changed. */
  recolour(): void {
    this.land?.draw();
    this.overlay.recolour();
    this.redraw();
  }

  resize(): void {
    this.map.invalidateSize({ pan: false });
    this.fit();
    this.redraw();
  }

  /** What there is to show now: these incidents, and what the store has of everything else. */
  show(store: Store, incidents: readonly Incident[], key: string): void {
    this.store = store;
    this.shown = incidents;
    this.fit();
    const wanted = `${key}#${store.shape}`;
    if (wanted !== this.indexed) {
      const wait = this.indexedAt + REGROUP_MS - performance.now();
      if (wait <= 0) this.regroup(wanted);
      else if (this.later === 0) {
        this.later = window.setTimeout(() => {
          this.later = 0;
          this.regroup(`${key}#${this.store.shape}`);
          this.redraw();
        }, wait);
        return;
      } else return;
    }
    this.redraw();
  }

  private regroup(key: string): void {
    this.indexed = key;
    this.indexedAt = performance.now();
    const index = new Supercluster<PointProperties, GroupProperties>({
      radius: 60,
      maxZoom: GROUP_UP_TO_ZOOM,
      map: ({ severity }) => ({ worst: severity }),
      reduce: (into, { worst }) => {
        into.worst = Math.max(into.worst, worst);
      },
    });
    index.load(
      this.shown
        .filter((incident) => incident.lon !== null && incident.lat !== null)
        .map((incident) => ({
          type: "Feature",
          properties: { id: incident.id, severity: incident.severity },
          geometry: { type: "Point", coordinates: [incident.lon ?? 0, incident.lat ?? 0] },
        })),
    );
    this.index = index;
  }

  /** Once, bring everything into view: the area of the operation where it has one, else all points. */
  private fit(): void {
    if (this.fitted || this.map.getSize().x === 0) return;
    const bbox = this.options.area;
    const points = this.shown.filter((incident) => incident.lon !== null).map((i) => [i.lat, i.lon] as [number, number]);
    if (bbox === null && points.length === 0) return;
    this.fitted = true;
    if (bbox !== null) {
      this.map.fitBounds([[bbox[1], bbox[0]], [bbox[3], bbox[2]]]); // prettier-ignore
    } else this.map.fitBounds(latLngBounds(points), { maxZoom: 12, padding: [40, 40] });
  }

  select(id: string | null): void {
    this.selected = id;
    const incident = id === null ? undefined : this.store.incidents.get(id);
    if (incident?.lat != null && incident.lon !== null) {
      const at = latLng(incident.lat, incident.lon);
      this.bringIntoView(at);
    }
    this.redraw();
  }

  /** Move the map only where the point lies outside, or below what covers its end. */
  private bringIntoView(at: LatLng): void {
    const size = this.map.getSize();
    const point = this.map.latLngToContainerPoint(at);
    const cover = document.querySelector<HTMLElement>(".detail:not([hidden])");
    const box = this.box.getBoundingClientRect();
    const covered = cover === null ? 0 : Math.max(0, box.right - cover.getBoundingClientRect().left);
    const free = size.x - covered;
    const inside = point.x > 30 && point.x < free - 30 && point.y > 30 && point.y < size.y - 30;
    if (!inside && free > 80) this.map.panBy([point.x - free / 2, point.y - size.y / 2], { animate: false });
  }

  private redraw(): void {
    const size = this.map.getSize();
    if (size.x === 0 || this.index === null) return;
    const bounds = this.map.getBounds().pad(0.1);
    const zoom = Math.round(this.map.getZoom());
    const drawn: Drawn = { points: [], sites: [], ways: [], selected: null, warnings: [...this.store.warnings.values()] }; // prettier-ignore
    const groups = new Set<string>();
    const box: [number, number, number, number] = [
      Math.max(-180, bounds.getWest()), Math.max(-85, bounds.getSouth()),
      Math.min(180, bounds.getEast()), Math.min(85, bounds.getNorth()),
    ]; // prettier-ignore
    for (const found of this.index.getClusters(box, zoom)) {
      const [lon = 0, lat = 0] = found.geometry.coordinates;
      if ("cluster" in found.properties && found.properties.cluster) {
        const { point_count, worst } = found.properties;
        const key = `${lon.toFixed(4)},${lat.toFixed(4)},${point_count},${worst}`;
        groups.add(key);
        if (!this.groups.has(key)) {
          const id = found.properties.cluster_id;
          this.groups.set(key, this.group(lat, lon, point_count, worst, id).addTo(this.map));
        }
      } else {
        const { id, severity } = found.properties as PointProperties;
        drawn.points.push({ id, lon, lat, severity });
      }
    }
    for (const [key, marker] of this.groups) {
      if (groups.has(key)) continue;
      marker.remove();
      this.groups.delete(key);
    }
    for (const site of this.store.sites.values()) {
      if (site.lon !== null && site.lat !== null) drawn.sites.push({ ...site, lon: site.lon, lat: site.lat });
    }
    this.ways(drawn);
    const selected = this.selected === null ? undefined : this.store.incidents.get(this.selected);
    if (selected?.lon != null && selected.lat !== null) {
      drawn.selected = { lon: selected.lon, lat: selected.lat, severity: selected.severity, id: selected.id };
    }
    this.overlay.draw(drawn);
  }

  private ways(drawn: Drawn): void {
    for (const assignment of this.store.assignments.values()) {
      if (assignment.state !== "started" && assignment.state !== "arrived") continue;
      const need = this.store.needs.get(assignment.need);
      if (need?.lon == null || need.lat === null) continue;
      drawn.ways.push({
        from: assignment.state === "started" ? this.options.origin(assignment.responder, assignment.lot) : null,
        to: [need.lon, need.lat],
        arrived: assignment.state === "arrived",
      });
    }
  }

  private group(lat: number, lon: number, count: number, worst: number, id: number): Marker {
    // Leaflet sets the display of an icon itself; what is centred is within it.
    const size = count < 10 ? 34 : count < 100 ? 40 : count < 1000 ? 46 : 54;
    const inner = h("span", { class: `group group-${level(worst)}` }, severityMark(worst), number(count));
    const marker = markerOf([lat, lon], {
      icon: divIcon({ html: inner, className: "group-icon", iconSize: [size, size] }),
      keyboard: true,
      alt: "",
      riseOnHover: true,
    });
    marker.on("add", () => {
      const label = t("map.group", { n: count, worst: severityWord(worst) });
      marker.getElement()?.setAttribute("aria-label", label);
      marker.getElement()?.setAttribute("title", label);
    });
    marker.on("click keypress", (event) => {
      const key = (event as unknown as { originalEvent?: KeyboardEvent }).originalEvent?.key;
      if (event.type === "keypress" && key !== "Enter") return;
      let zoom = this.map.getZoom() + 2;
      try {
        zoom = this.index?.getClusterExpansionZoom(id) ?? zoom;
      } catch {
        // grouped anew since then: two steps closer will do
      }
      this.map.setView([lat, lon], Math.min(zoom, 17), { animate: false });
    });
    return marker;
  }

  private clicked(event: LeafletMouseEvent): void {
    if (this.picking !== null) {
      const { lng, lat } = event.latlng.wrap();
      this.finishPicking([Number(lng.toFixed(5)), Number(lat.toFixed(5))]);
      return;
    }
    const found = this.overlay.at(event.containerPoint);
    if (found?.kind === "incident") this.options.opened(found.id);
    else if (found?.kind === "site") {
      const site = this.store.sites.get(found.id);
      if (site === undefined) return;
      const people =
        site.people === null
          ? t("site.uncounted")
          : t(site.capacity === null ? "site.people" : "site.people_of", { n: site.people, of: site.capacity ?? 0 });
      this.say(event, h("div", null, h("strong", null, h("bdi", null, site.name)), h("br"), people));
    } else if (found?.kind === "warning") {
      const warning = this.store.warnings.get(found.id);
      if (warning !== undefined) this.say(event, warningWords(warning));
    }
  }

  private say(event: LeafletMouseEvent, content: HTMLElement): void {
    popup({ maxWidth: 360 }).setLatLng(event.latlng).setContent(content).openOn(this.map);
  }

  /** Ask for a point on the map: by a click, or by its middle (Enter); Escape gives null. */
  pick(done: (point: [number, number] | null) => void): void {
    this.picking = done;
    this.box.classList.add("picking");
    this.box.focus();
    addEventListener("keydown", this.pickingKeys, true);
  }

  private readonly pickingKeys = (event: KeyboardEvent): void => {
    if (event.key === "Escape") this.finishPicking(null);
    else if (event.key === "Enter") {
      const { lng, lat } = this.map.getCenter().wrap();
      this.finishPicking([Number(lng.toFixed(5)), Number(lat.toFixed(5))]);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  };

  private finishPicking(point: [number, number] | null): void {
    const done = this.picking;
    this.picking = null;
    this.box.classList.remove("picking");
    removeEventListener("keydown", this.pickingKeys, true);
    done?.(point);
  }
}
