// Names of provinces, regencies and cities, for finding one by its first letters. Loaded when a name is typed.

import table from "virtual:areas";
import { t } from "../common/i18n.ts";

export interface Named {
  name: string;
  admin: string;
}

export interface Centre {
  name: string;
  lon: number;
  lat: number;
}

const ROWS = table.map((line) => line.split(","));
const PROVINCES = new Map(ROWS.filter((row) => row[0]?.length === 2).map((row) => [row[0], row[1]]));
const AREAS = ROWS.map(([code = "", name = ""]) => ({
  admin: `kemendagri:${code}`,
  name: code.length > 2 ? `${name}, ${PROVINCES.get(code.slice(0, 2))}` : name,
  words: plain(name.replace(/^(Kab\.|Kota) /, "")),
  whole: plain(name),
}));

export const CENTRES: Centre[] = ROWS.filter((row) => row[2]).map((row) => ({ name: row[1] ?? "", lon: Number(row[2]), lat: Number(row[3]) }));

/** Who the names are from, to stand wherever they are shown. */
export function attribution(): string {
  return t("where.source");
}

/** At most six areas whose name begins with what was typed last, as in `Kampung Melayu, jakarta t`. */
export function find(said: string): Named[] {
  const wanted = plain(said.split(",").pop() ?? "");
  if (wanted.length < 3) return [];
  const first = AREAS.filter((area) => area.words.startsWith(wanted) || area.whole.startsWith(wanted));
  const rest = AREAS.filter((area) => !first.includes(area) && area.words.includes(` ${wanted}`));
  return [...first, ...rest].slice(0, 6);
}

function plain(name: string): string {
  return name.toLowerCase().normalize("NFD").replace(/[^a-z]+/g, " ").trim();
}
