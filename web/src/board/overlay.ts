// What the map draws on a canvas of its own: single incidents, evacuation posts, ways, place names. One element for
// all of them, because five thousand would each be laid out anew at every move.

import { DomUtil, type Map as LeafletMap, type Point } from "leaflet";
import { t } from "../common/i18n.ts";
import { COLOURS, level, SHAPES } from "../common/severity.ts";

export interface Drawn {
  points: { id: string; lon: number; lat: number; severity: number }[];
  sites: { id: string; lon: number; lat: number; alarm: string }[];
  ways: { from: [number, number] | null; to: [number, number]; arrived: boolean }[];
  warnings: { id: string; severity: number; polygons: [number, number][][] }[];
  selected: { id: string; lon: number; lat: number; severity: number } | null;
}

export interface Found {
  kind: "incident" | "site" | "warning";
  id: string;
}

/** Drawn beyond the edges, so that a short pan shows no gap. */
const MARGIN = 160;
const SIZE = [13, 15, 18, 22, 27] as const;

export class Overlay {
  /** Name, longitude, latitude, and the zooms between which it is shown; the weightiest first. */
  places: [string, number, number, number, number][] = [];
  private readonly canvas: HTMLCanvasElement;
  private readonly context: CanvasRenderingContext2D | null;
  private readonly paths = SHAPES.map((shape) => new Path2D(shape));
  private colours = { ink: "#000", ground: "#fff", quiet: "#555", accent: "#06c", bad: "#c00" };
  private areas: { id: string; path: Path2D }[] = [];
  private ratio = 1;
  private hits: { x: number; y: number; found: Found }[] = [];

  constructor(private readonly map: LeafletMap) {
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("aria-hidden", "true");
    this.context = this.canvas.getContext("2d");
    map.getPane("overlay")?.append(this.canvas);
    this.recolour();
  }

  recolour(): void {
    const style = getComputedStyle(document.documentElement);
    const of = (name: string): string => style.getPropertyValue(name).trim();
    this.colours = {
      ink: of("--ink"),
      ground: of("--land"),
      quiet: of("--quiet"),
      accent: of("--accent"),
      bad: of("--bad"),
    };
  }

  /** What lies under a point of the container, the nearest first. */
  at(point: Point): Found | null {
    let best: { far: number; found: Found } | null = null;
    for (const { x, y, found } of this.hits) {
      const far = (x - point.x) ** 2 + (y - point.y) ** 2;
      if (far < 18 * 18 && (best === null || far < best.far)) best = { far, found };
    }
    if (best !== null) return best.found;
    for (const { id, path } of this.areas) {
      if (this.context?.isPointInPath(path, (point.x + MARGIN) * this.ratio, (point.y + MARGIN) * this.ratio)) {
        return { kind: "warning", id };
      }
    }
    return null;
  }

  draw(drawn: Drawn): void {
    const context = this.context;
    if (context === null) return;
    const size = this.map.getSize();
    const ratio = (this.ratio = Math.min(2, devicePixelRatio || 1));
    const width = size.x + 2 * MARGIN;
    const height = size.y + 2 * MARGIN;
    if (this.canvas.width !== width * ratio || this.canvas.height !== height * ratio) {
      this.canvas.width = width * ratio;
      this.canvas.height = height * ratio;
      this.canvas.style.width = `${width}px`;
      this.canvas.style.height = `${height}px`;
    }
    DomUtil.setPosition(this.canvas, this.map.containerPointToLayerPoint([-MARGIN, -MARGIN]));
    context.setTransform(ratio, 0, 0, ratio, MARGIN * ratio, MARGIN * ratio);
    context.clearRect(-MARGIN, -MARGIN, width, height);
    this.hits = [];
    this.warnings(context, drawn.warnings);
    this.names(context, size);
    this.ways(context, drawn.ways);
    this.sites(context, drawn.sites);
    for (const point of drawn.points) this.incident(context, point, false);
    if (drawn.selected !== null) this.incident(context, drawn.selected, true);
  }

  private to(lon: number, lat: number): Point {
    return this.map.latLngToContainerPoint([lat, lon]);
  }

  private seen(at: Point, size: Point): boolean {
    return at.x > -MARGIN && at.y > -MARGIN && at.x < size.x + MARGIN && at.y < size.y + MARGIN;
  }

  private warnings(context: CanvasRenderingContext2D, warnings: Drawn["warnings"]): void {
    this.areas = [];
    for (const { id, severity, polygons } of warnings) {
      const path = new Path2D();
      for (const ring of polygons) {
        ring.forEach(([lon, lat], at) => {
          const { x, y } = this.to(lon, lat);
          if (at === 0) path.moveTo(x, y);
          else path.lineTo(x, y);
        });
        path.closePath();
      }
      context.fillStyle = context.strokeStyle = COLOURS[level(severity)];
      context.globalAlpha = 0.14;
      context.fill(path);
      context.globalAlpha = 1;
      context.lineWidth = 2;
      context.setLineDash([8, 5]);
      context.stroke(path);
      context.setLineDash([]);
      this.areas.push({ id, path });
    }
  }

  private names(context: CanvasRenderingContext2D, size: Point): void {
    const zoom = this.map.getZoom();
    context.font = "12px system-ui, 'Noto Sans', 'Liberation Sans', sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineWidth = 3;
    context.strokeStyle = this.colours.ground;
    context.fillStyle = this.colours.quiet;
    const taken: [number, number, number][] = [];
    for (const [name, lon, lat, from, to] of this.places) {
      if (zoom < from || zoom > to) continue;
      const at = this.to(lon, lat);
      if (!this.seen(at, size)) continue;
      const half = context.measureText(name).width / 2 + 4;
      // A name that would lie on another is left out: two on one another are none.
      if (taken.some(([x, y, w]) => Math.abs(x - at.x) < w + half && Math.abs(y - at.y) < 15)) continue;
      taken.push([at.x, at.y, half]);
      context.strokeText(name, at.x, at.y);
      context.fillText(name, at.x, at.y);
    }
  }

  private ways(context: CanvasRenderingContext2D, ways: Drawn["ways"]): void {
    context.strokeStyle = this.colours.accent;
    context.fillStyle = this.colours.accent;
    context.lineWidth = 2.5;
    for (const way of ways) {
      const to = this.to(...way.to);
      if (way.from === null) {
        // Nobody's position is tracked: who has arrived, or set out from where we do not know, is a ring at the need.
        context.beginPath();
        context.setLineDash(way.arrived ? [] : [4, 3]);
        context.arc(to.x, to.y, 15, 0, 2 * Math.PI);
        context.stroke();
        continue;
      }
      const from = this.to(...way.from);
      context.beginPath();
      context.setLineDash([7, 5]);
      context.moveTo(from.x, from.y);
      context.lineTo(to.x, to.y);
      context.stroke();
      this.arrow(context, from, to);
    }
    context.setLineDash([]);
  }

  private arrow(context: CanvasRenderingContext2D, from: Point, to: Point): void {
    const angle = Math.atan2(to.y - from.y, to.x - from.x);
    context.save();
    context.translate((from.x + to.x) / 2, (from.y + to.y) / 2);
    context.rotate(angle);
    context.beginPath();
    context.moveTo(9, 0);
    context.lineTo(-6, 7);
    context.lineTo(-6, -7);
    context.closePath();
    context.fill();
    context.restore();
  }

  private sites(context: CanvasRenderingContext2D, sites: Drawn["sites"]): void {
    for (const site of sites) {
      const at = this.to(site.lon, site.lat);
      const full = site.alarm === "full" || site.alarm === "over";
      context.fillStyle = full ? this.colours.bad : this.colours.accent;
      context.strokeStyle = this.colours.ground;
      context.lineWidth = 1.5;
      context.beginPath();
      context.moveTo(at.x, at.y - 10);
      context.lineTo(at.x + 10, at.y - 1);
      context.lineTo(at.x + 7, at.y - 1);
      context.lineTo(at.x + 7, at.y + 8);
      context.lineTo(at.x - 7, at.y + 8);
      context.lineTo(at.x - 7, at.y - 1);
      context.lineTo(at.x - 10, at.y - 1);
      context.closePath();
      context.fill();
      context.stroke();
      if (full) {
        context.fillStyle = this.colours.ground;
        context.font = "bold 12px sans-serif";
        context.textAlign = "center";
        context.textBaseline = "middle";
        context.fillText(t("map.full_mark"), at.x, at.y + 2);
      }
      this.hits.push({ x: at.x, y: at.y, found: { kind: "site", id: site.id } });
    }
  }

  private incident(context: CanvasRenderingContext2D, point: Drawn["points"][number], selected: boolean): void {
    const at = this.to(point.lon, point.lat);
    const of = level(point.severity);
    const path = this.paths[of];
    if (path === undefined) return;
    const scale = SIZE[of] / 20;
    context.save();
    context.translate(at.x, at.y);
    if (selected) {
      context.beginPath();
      context.strokeStyle = this.colours.ink;
      context.lineWidth = 3;
      context.arc(0, 0, 20, 0, 2 * Math.PI);
      context.stroke();
    }
    context.scale(scale, scale);
    context.translate(-10, -10);
    context.fillStyle = COLOURS[of];
    context.strokeStyle = "#10151c";
    context.lineWidth = 1.6 / scale;
    context.fill(path);
    context.stroke(path);
    context.restore();
    this.hits.push({ x: at.x, y: at.y, found: { kind: "incident", id: point.id } });
  }
}
