// When it happened: new incidents of the last day as bars, the windows of 1, 6 and 24 hours, and a slider that goes
// back to what was known at an earlier instant.

import { fill, h, s, text } from "../common/dom.ts";
import { number, t, when } from "../common/i18n.ts";
import type { Incident } from "./state.ts";

const BARS = 48;
const SPAN_MS = 24 * 3_600_000;
const STEP_MIN = 5;
export const WINDOWS = [1, 6, 24, 0] as const;

export class TimeBar {
  readonly box: HTMLElement;
  private readonly chart = h("div", { class: "bars", "aria-hidden": "true" });
  private readonly buttons = new Map<number, HTMLButtonElement>();
  private readonly slider: HTMLInputElement;
  private readonly label = h("output", { class: "as-of", for: "as-of" });
  private timer = 0;
  private drawn = "";

  constructor(
    private readonly chosen: { hours(hours: number): void; asOf(instant: number | null): void },
  ) {
    this.slider = h("input", {
      type: "range", id: "as-of", min: -(24 * 60), max: 0, step: STEP_MIN, value: 0,
      "aria-label": t("time.as_of"), oninput: () => this.moved(),
    }); // prettier-ignore
    const windows = WINDOWS.map((hours) => {
      const button = h(
        "button",
        { type: "button", "aria-pressed": "false", onclick: () => this.chosen.hours(hours) },
        hours === 0 ? t("time.all") : t("time.hours", { n: hours }),
      );
      this.buttons.set(hours, button);
      return button;
    });
    this.box = h(
      "section",
      { class: "timebar", "aria-label": t("time.title") },
      h("div", { class: "windows", role: "group", "aria-label": t("time.window") }, windows),
      h("div", { class: "track" }, this.chart, this.slider),
      this.label,
    );
    this.say(null);
  }

  hours(hours: number): void {
    for (const [of, button] of this.buttons) button.setAttribute("aria-pressed", String(of === hours));
  }

  /** Set the slider to what the address says. */
  set(asOf: number | null, now: number): void {
    this.slider.value = asOf === null ? "0" : String(Math.max(-1440, Math.round((asOf - now) / 60_000)));
    this.say(asOf);
  }

  private moved(): void {
    const minutes = Number(this.slider.value);
    const instant = minutes === 0 ? null : Date.now() + minutes * 60_000;
    this.say(instant);
    clearTimeout(this.timer);
    // Only where the hand rests is asked for.
    this.timer = window.setTimeout(() => this.chosen.asOf(instant), 350);
  }

  private say(instant: number | null): void {
    const words = instant === null ? t("time.now") : t("time.then", { time: when(instant) });
    text(this.label, words);
    this.slider.setAttribute("aria-valuetext", words);
  }

  /** Bars of the incidents by when they began; the severe ones are marked darker. */
  draw(incidents: Iterable<Incident>, now: number): void {
    const all = new Array<number>(BARS).fill(0);
    const severe = new Array<number>(BARS).fill(0);
    const from = now - SPAN_MS;
    for (const incident of incidents) {
      const at = Math.floor(((incident.opened - from) / SPAN_MS) * BARS);
      if (at < 0 || at >= BARS) continue;
      all[at] = (all[at] ?? 0) + 1;
      if (incident.severity >= 3) severe[at] = (severe[at] ?? 0) + 1;
    }
    const key = `${all.join()}|${severe.join()}`;
    if (key === this.drawn) return;
    this.drawn = key;
    const most = Math.max(1, ...all);
    const bar = (count: number, at: number, kind: string): SVGElement =>
      s("rect", { x: at + 0.1, width: 0.8, y: 20 - (count / most) * 20, height: (count / most) * 20, class: kind });
    fill(
      this.chart,
      s(
        "svg",
        { viewBox: `0 0 ${BARS} 20`, preserveAspectRatio: "none" },
        ...all.map((count, at) => bar(count, at, "bar")),
        ...severe.map((count, at) => bar(count, at, "bar bar-severe")),
      ),
      h("span", { class: "most" }, number(most)),
    );
  }
}
