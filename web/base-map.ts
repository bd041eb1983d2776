// The base map of the board, made when the page is built: the countries of Natural Earth, fine around Indonesia and
// coarse elsewhere, as small numbers that the browser adds up again.

import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { feature } from "topojson-client";
import type { GeometryCollection, Topology } from "topojson-specification";
import type { Plugin } from "vite";

/** Steps a degree: 0.005° is half a kilometre. */
const GRID = 200;
/** ISO 3166 numbers of Indonesia and those whose coast one sees beside it. */
const FINE = new Set(["360", "458", "626", "598", "702", "096"]);

type Countries = Topology<{ countries: GeometryCollection }>;

/** `virtual:land` is `number[][]`: each ring as x, y of its first point and steps from there, in 1/200 degrees. */
export function baseMap(): Plugin {
  const name = "virtual:land";
  return {
    name: "base-map",
    resolveId: (id) => (id === name ? `\0${name}` : null),
    load: (id) => (id === `\0${name}` ? `export default JSON.parse("${JSON.stringify(land())}")` : null),
  };
}

/** Source: Natural Earth, by world-atlas. */
function land(): number[][] {
  return [...rings("50m", (id) => !FINE.has(id)), ...rings("10m", (id) => FINE.has(id))];
}

function rings(scale: string, wanted: (id: string) => boolean): number[][] {
  const path = resolve(import.meta.dirname, `node_modules/world-atlas/countries-${scale}.json`);
  const world = JSON.parse(readFileSync(path, "utf8")) as Countries;
  const found: number[][] = [];
  for (const { id, geometry } of feature(world, world.objects.countries).features) {
    if (!wanted(String(id))) continue;
    const polygons =
      geometry.type === "Polygon" ? [geometry.coordinates]
      : geometry.type === "MultiPolygon" ? geometry.coordinates : []; // prettier-ignore
    for (const ring of polygons.flat()) {
      const steps = stepsOf(ring as [number, number][]);
      if (steps.length >= 8) found.push(steps);
    }
  }
  return found;
}

function stepsOf(ring: [number, number][]): number[] {
  const steps: number[] = [];
  let before: [number, number] | null = null;
  for (const [lon, lat] of ring) {
    const at: [number, number] = [Math.round(lon * GRID), Math.round(lat * GRID)];
    if (before !== null && at[0] === before[0] && at[1] === before[1]) continue;
    steps.push(before === null ? at[0] : at[0] - before[0], before === null ? at[1] : at[1] - before[1]);
    before = at;
  }
  return steps;
}
