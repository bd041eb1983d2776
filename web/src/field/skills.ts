// The vocabulary's skills, in both languages.

import labels from "virtual:skills";
import trained from "virtual:trained-skills";
import { language } from "../common/i18n.ts";

/** Code and label of what anybody may offer to do, or of what needs training and is checked first. */
export function skills(special: boolean): { code: string; label: string }[] {
  return Object.keys(labels)
    .filter((code) => trained.includes(code) === special)
    .map((code) => ({ code, label: skillWord(code) }));
}

export function skillWord(code: string): string {
  return labels[code]?.[language() === "en" ? 1 : 0] ?? code;
}
