// What the field page alone is built with beside its code: a coast of Indonesia as small as a bad line asks for, and
// which skills need training. Names of areas and skills: vocabulary.ts.

import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { feature } from "topojson-client";
import type { GeometryCollection, Topology } from "topojson-specification";
import type { Plugin } from "vite";

const HERE = import.meta.dirname;
/** West, south, east, north. */
const BOX = [94, -12, 142, 7] as const;
/** Points a degree: 0.02° are two kilometres, a pixel of a phone's map at its middle zoom. */
const GRID = 50;
const TOLERANCE = 0.025;

type Point = [number, number];

/** `virtual:coast` is `number[][]`: each ring as x, y of its first point and steps from there, in 1/50 degrees east of
 * 94° and north of -12°. `virtual:trained-skills` is `string[]`. */
export function fieldData(): Plugin {
  const made: Record<string, () => unknown> = { "virtual:coast": coast, "virtual:trained-skills": trained };
  return {
    name: "field-data",
    resolveId: (id) => (id in made ? `\0${id}` : null),
    load: (id) => {
      const make = id.startsWith("\0") ? made[id.slice(1)] : undefined;
      return make && `export default JSON.parse(${JSON.stringify(JSON.stringify(make()))})`;
    },
  };
}

/** Source: Natural Earth 1:10m land, by world-atlas. */
function coast(): number[][] {
  const world = JSON.parse(readFileSync(resolve(HERE, "node_modules/world-atlas/land-10m.json"), "utf8")) as Topology<{
    land: GeometryCollection;
  }>;
  const rings: number[][] = [];
  for (const { geometry } of feature(world, world.objects.land).features) {
    const polygons = geometry.type === "Polygon" ? [geometry.coordinates] : geometry.type === "MultiPolygon" ? geometry.coordinates : [];
    for (const ring of polygons.flat()) {
      const steps = stepsOf(ring as Point[]);
      if (steps) rings.push(steps);
    }
  }
  return rings;
}

function stepsOf(ring: Point[]): number[] | null {
  const inside = ring.some(([x, y]) => x > BOX[0] && x < BOX[2] && y > BOX[1] && y < BOX[3]);
  if (!inside) return null;
  const clamped = ring.map(([x, y]): Point => [Math.min(Math.max(x, BOX[0]), BOX[2]), Math.min(Math.max(y, BOX[1]), BOX[3])]);
  const steps: number[] = [];
  let before: Point | null = null;
  for (const [x, y] of simplified(clamped)) {
    const at: Point = [Math.round((x - BOX[0]) * GRID), Math.round((y - BOX[1]) * GRID)];
    if (before && at[0] === before[0] && at[1] === before[1]) continue;
    steps.push(before ? at[0] - before[0] : at[0], before ? at[1] - before[1] : at[1]);
    before = at;
  }
  return steps.length >= 8 ? steps : null;
}

/** Douglas and Peucker's: the fewest points that leave no other further away than the tolerance. */
function simplified(points: Point[]): Point[] {
  const kept = new Set([0, points.length - 1]);
  const waiting: Point[] = [[0, points.length - 1]];
  for (let span = waiting.pop(); span; span = waiting.pop()) {
    const [from, to] = span;
    const a = points[from] as Point;
    const b = points[to] as Point;
    let furthest = 0;
    let at = -1;
    for (let n = from + 1; n < to; n++) {
      const away = distance(points[n] as Point, a, b);
      if (away > furthest) [furthest, at] = [away, n];
    }
    if (furthest > TOLERANCE) {
      kept.add(at);
      waiting.push([from, at], [at, to]);
    }
  }
  return points.filter((_, n) => kept.has(n));
}

function distance([x, y]: Point, [ax, ay]: Point, [bx, by]: Point): number {
  const length = (bx - ax) ** 2 + (by - ay) ** 2;
  const share = length === 0 ? 0 : Math.min(1, Math.max(0, ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length));
  return Math.hypot(x - ax - share * (bx - ax), y - ay - share * (by - ay));
}

/** Codes of the skills in which someone without training would endanger themselves or others. */
function trained(): string[] {
  const rows = readFileSync(resolve(HERE, "../schemas/vocabulary/skills.csv"), "utf8").trim().split("\n");
  const risk = rows[0]?.split(",").indexOf("risk") ?? -1;
  return rows.map((row) => row.split(",")).filter((row) => row[risk] === "high").map((row) => row[0] ?? "");
}
