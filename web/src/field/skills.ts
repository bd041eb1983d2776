// The vocabulary's skills, in both languages; low-risk ones first, for those are offered without a check.

import table from "../../../schemas/vocabulary/skills.csv?raw";
import { language } from "../common/i18n.ts";

const ROWS = table.trim().split("\n").slice(1).map((line) => line.split(","));

/** Code and label of what anybody may offer to do; what needs training comes last. */
export function skills(): { code: string; label: string }[] {
  return [...ROWS]
    .sort((a, b) => Number(a[4] === "high") - Number(b[4] === "high"))
    .map((row) => ({ code: row[0] ?? "", label: label(row) }));
}

export function skillWord(code: string): string {
  const row = ROWS.find((row) => row[0] === code);
  return row ? label(row) : code;
}

function label(row: string[]): string {
  return (language() === "en" ? row[3] : row[2]) ?? "";
}
