// What codes are called in the language of the page.

import areas from "virtual:area-names";
import { known, number, t } from "../common/i18n.ts";
import type { Need } from "./state.ts";

export type Labels = Record<"hazards" | "items" | "skills" | "units", Record<string, string>>;

let labels: Labels = { hazards: {}, items: {}, skills: {}, units: {} };

/** Take these labels from now on: those of the language of the page. */
export function useLabels(these: Labels): void {
  labels = these;
}

function label(of: Record<string, string>, code: string): string {
  // Words are open: one that the vocabulary does not have is shown as it is written.
  return of[code] ?? code.replaceAll("_", " ");
}

export function hazard(code: string | null): string {
  return code === null ? t("hazard.none") : label(labels.hazards, code);
}

export function hazardCodes(): string[] {
  return Object.keys(labels.hazards);
}

export function thing(code: string): string {
  return label(code in labels.items ? labels.items : labels.skills, code);
}

export function things(): { code: string; kind: "item" | "skill" }[] {
  return [
    ...Object.keys(labels.items).map((code) => ({ code, kind: "item" as const })),
    ...Object.keys(labels.skills).map((code) => ({ code, kind: "skill" as const })),
  ];
}

export function what(need: { item: string | null; skill: string | null }): string {
  return thing(need.item ?? need.skill ?? "");
}

export function quantity(count: number, unit: string): string {
  if (unit === "person" && count === 1) return t("quantity.person");
  return `${number(count)} ${label(labels.units, unit)}`;
}

/** A text with a count in it, in the singular where it is one. */
export function counted(key: string, n: number): string {
  return t(n === 1 ? `${key}.one` : key, { n });
}

export function needWords(need: Need): string {
  return `${quantity(need.quantity, need.unit)} ${what(need)}`;
}

/** The name of an area of a Kemendagri code, or of the regency around it. */
export function area(admin: string | null): string | null {
  if (admin === null) return null;
  const [scheme, code = ""] = admin.split(":");
  if (scheme !== "kemendagri") return admin;
  const parts = code.split(".");
  for (let length = parts.length; length > 0; length--) {
    const name = areas[parts.slice(0, length).join(".")];
    if (name !== undefined) return name;
  }
  return admin;
}

export function areaCodes(): Record<string, string> {
  return areas;
}

/** Who decided, as people say it: `operator:ani` → "operator ani"; rules are called rules. */
export function who(by: string | null | undefined): string {
  if (!by) return t("who.unknown");
  const [role = "", ...rest] = by.split(":");
  const subject = rest.join(":");
  const name = known(`who.${role}`) ? t(`who.${role}`) : role;
  if (role === "rule" || role === "system" || role === "ticket") return name;
  return subject === "" ? name : `${name} ${subject}`;
}

/** A word of a fixed set in the catalogue, else the word itself. */
export function word(group: string, code: string): string {
  const key = `${group}.${code}`;
  return known(key) ? t(key) : code.replaceAll("_", " ").replaceAll(".", " ");
}
