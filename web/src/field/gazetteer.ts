// Names of provinces, regencies and cities, for finding one by its first letters. Loaded when a name is typed.

import names from "virtual:area-names";
import { t } from "../common/i18n.ts";

export interface Named {
  name: string;
  admin: string;
}

const AREAS = Object.entries(names).map(([code, name]) => ({
  admin: `kemendagri:${code}`,
  name: code.length > 2 ? `${name.replace(" Administrasi", "")}, ${names[code.slice(0, 2)]}` : name,
  words: plain(name.replace(/^(Kab\.|Kota) (Administrasi )?/, "")),
  whole: plain(name),
}));

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
