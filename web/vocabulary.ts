// The words of schemas/vocabulary for the pages, as they stand there: nobody copies a label by hand. Each list is a
// module of its own, so that a page carries only what it shows.

import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import type { Plugin } from "vite";

const FOLDER = resolve(import.meta.dirname, "../schemas/vocabulary");
const LABELLED = ["hazards", "items", "skills", "units"];

/** `virtual:hazards`, `virtual:items`, `virtual:skills`, `virtual:units`: code to its two labels, Indonesian first.
 * `virtual:labels-id`, `virtual:labels-en`: all four by their names, in one language.
 * `virtual:area-names`: Kemendagri code of a province, regency or city to its name; `virtual:area-points`: to its name,
 * longitude and latitude. */
export function vocabulary(): Plugin {
  const prefix = "\0vocabulary:";
  return {
    name: "vocabulary",
    resolveId: (id) => {
      const name = id.startsWith("virtual:") ? id.slice(8) : "";
      return LABELLED.includes(name) || name in MADE ? prefix + name : null;
    },
    load: (id) => {
      if (!id.startsWith(prefix)) return null;
      const name = id.slice(prefix.length);
      const made = MADE[name]?.() ?? labels(name);
      return `export default JSON.parse(${JSON.stringify(JSON.stringify(made))})`;
    },
  };
}

function labels(name: string): Record<string, [string, string]> {
  return Object.fromEntries(
    table(`${name}.csv`).map((row) => [row["code"] ?? row["unit"], [row["label_id"] ?? "", row["label_en"] ?? ""]]),
  ) as Record<string, [string, string]>;
}

const MADE: Record<string, () => Record<string, unknown>> = {
  "area-names": areaNames,
  "area-points": areaPoints,
  "labels-id": () => labelsIn(0),
  "labels-en": () => labelsIn(1),
};

function labelsIn(language: 0 | 1): Record<string, unknown> {
  const one = (name: string): [string, unknown] => [
    name,
    Object.fromEntries(Object.entries(labels(name)).map(([code, both]) => [code, both[language]])),
  ];
  return Object.fromEntries(LABELLED.map(one));
}

function areas(): Record<string, string>[] {
  return table("areas.csv").filter((row) => row["scheme"] === "kemendagri");
}

function areaNames(): Record<string, unknown> {
  return Object.fromEntries(areas().map((row) => [row["code"], (row["name"] ?? "").replace("Kabupaten", "Kab.")]));
}

function areaPoints(): Record<string, unknown> {
  return Object.fromEntries(
    areas()
      .filter((row) => row["lon"])
      .map((row) => [
        row["code"],
        [(row["name"] ?? "").replace("Kabupaten ", "").replace("Kota Administrasi ", ""), Number(row["lon"]), Number(row["lat"])],
      ]),
  );
}

/** The rows of a CSV file by the names in its head; these files have no line breaks within a cell. */
function table(file: string): Record<string, string>[] {
  const [head = [], ...rows] = readFileSync(resolve(FOLDER, file), "utf8").trim().split(/\r?\n/).map(cells);
  return rows.map((row) => Object.fromEntries(head.map((name, at) => [name, row[at] ?? ""])));
}

function cells(line: string): string[] {
  return [...line.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g)].map(
    ([, quoted, plain]) => quoted?.replaceAll('""', '"') ?? plain ?? "",
  );
}
