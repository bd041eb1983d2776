// Severity is told by colour, by shape and by word, so that none of the three is needed. The colours are from the
// Okabe-Ito set, which stays apart for every kind of colour blindness and in grey.

import { s } from "./dom.ts";
import { t } from "./i18n.ts";

export type Severity = 1 | 2 | 3 | 4;

/** By severity: minor, moderate, severe, life at risk now. Index 0 stands for unknown. */
export const COLOURS = ["#8a8f98", "#56b4e9", "#f0e442", "#e69f00", "#d55e00"] as const;

/** Shapes on a field of 20 by 20: dot, square, triangle, and a diamond that is larger than all. */
export const SHAPES = [
  "M10 6a4 4 0 1 0 .01 0z",
  "M10 4a6 6 0 1 0 .01 0z",
  "M4 4h12v12H4z",
  "M10 2 18.5 17h-17z",
  "M10 0 20 10 10 20 0 10z",
] as const;

export function severityWord(severity: number | null | undefined): string {
  return t(`severity.${level(severity)}`);
}

export function level(severity: number | null | undefined): 0 | Severity {
  return severity === 1 || severity === 2 || severity === 3 || severity === 4 ? severity : 0;
}

/** The mark of a severity; it is hidden from screen readers, the word beside it is what they read. */
export function severityMark(severity: number | null | undefined): SVGElement {
  const at = level(severity);
  return s(
    "svg",
    { class: `mark mark-${at}`, viewBox: "-1 -1 22 22", "aria-hidden": "true", focusable: "false" },
    s("path", { d: SHAPES[at], fill: COLOURS[at], stroke: "currentColor", "stroke-width": 1.4 }),
  );
}
