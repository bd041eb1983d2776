// Where it is: by GPS, by name, by a tap on the map, or not at all. The typed name is always sent as it stands; a point
// or an area code beside it is what was chosen last.

import { h, fill } from "../common/dom.ts";
import { t } from "../common/i18n.ts";
import type { Named } from "./gazetteer.ts";
import { sendable, type Where } from "./report.ts";

export interface Spot {
  lon?: number;
  lat?: number;
  accuracy_m?: number;
  admin?: string;
}

const GPS_PATIENCE_MS = 30_000;

export class Place implements Where {
  private chosen: Spot = {};
  /** What the chosen point was called when it was chosen by name. */
  private named = "";
  private asked = 0;

  constructor(
    private readonly form: HTMLElement,
    private readonly changed: () => void,
  ) {
    this.part("gps").addEventListener("click", () => this.locate());
    this.part("map-open").addEventListener("click", () => void this.openMap());
    this.input.addEventListener("input", () => void this.look());
    // Enter in the name is no wish to send: it takes the first suggestion.
    this.input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      this.part("found").querySelector("button")?.click();
    });
  }

  private part<T extends HTMLElement>(id: string): T {
    return this.form.querySelector(`#${id}`) as T;
  }

  private get input(): HTMLInputElement {
    return this.part("place");
  }

  get value(): Record<string, unknown> | null {
    const place = sendable(this.input.value).trim();
    const value = { ...this.chosen, ...(place ? { place } : {}) };
    return Object.keys(value).length > 0 ? value : null;
  }

  set value(location: Record<string, unknown> | null) {
    const { place, ...chosen } = location ?? {};
    this.input.value = typeof place === "string" ? place : "";
    this.named = this.input.value;
    this.choose(chosen as Spot, Object.keys(chosen).length === 0 ? "" : t("where.kept"));
    this.part("found").hidden = true;
  }

  private choose(place: Spot, said: string): void {
    this.chosen = place;
    fill(
      this.part("there"),
      said,
      (place.lon !== undefined || place.admin !== undefined) && h("button", { type: "button", onclick: () => this.forget() }, t("where.forget")),
    );
    this.changed();
  }

  private forget(): void {
    this.choose({}, "");
    this.part("gps").focus();
  }

  private locate(): void {
    const say = (key: string) => this.choose(this.chosen, t(key));
    if (!("geolocation" in navigator) || !isSecureContext) return say("where.gps.none");
    say("where.gps.looking");
    navigator.geolocation.getCurrentPosition(
      ({ coords }) =>
        this.choose(
          { lon: round(coords.longitude), lat: round(coords.latitude), accuracy_m: Math.round(coords.accuracy) },
          t("where.gps.found", { m: Math.round(coords.accuracy) }),
        ),
      (error) => say(error.code === error.PERMISSION_DENIED ? "where.gps.forbidden" : "where.gps.none"),
      { enableHighAccuracy: true, timeout: GPS_PATIENCE_MS, maximumAge: 60_000 },
    );
  }

  private async look(): Promise<void> {
    const said = this.input.value;
    // Another name is another place: the point that was chosen by the old one must not stay.
    if (this.named !== "" && said !== this.named && this.chosen.admin !== undefined) this.choose({}, "");
    this.changed();
    const turn = ++this.asked;
    const list = this.part("found");
    list.hidden = true;
    if (said.trim().length < 3) return;
    const gazetteer = await import("./gazetteer.ts").catch(() => null);
    if (gazetteer === null || turn !== this.asked) return;
    const found = gazetteer.find(said);
    fill(
      list,
      found.map((place) =>
        h("li", null, h("button", { type: "button", onclick: () => this.take(place) }, place.name)),
      ),
      found.length > 0 && h("li", { class: "quiet" }, gazetteer.attribution()),
    );
    list.hidden = found.length === 0;
  }

  private take({ name, admin }: Named): void {
    // What was typed before it (a village, a street) is the better half of the name.
    const before = this.input.value.split(",").slice(0, -1).map((part) => part.trim());
    this.input.value = this.named = [...before, name].filter(Boolean).join(", ");
    this.part("found").hidden = true;
    this.asked++;
    // One who stands there and names the town besides keeps the better point.
    if (this.chosen.lon !== undefined) this.choose(this.chosen, t("where.kept"));
    else this.choose({ admin }, t("where.named"));
    this.input.focus();
  }

  private async openMap(): Promise<void> {
    const map = this.part("map");
    const button = this.part("map-open");
    map.hidden = !map.hidden;
    button.setAttribute("aria-expanded", String(!map.hidden));
    if (map.hidden || map.firstChild !== null) return;
    map.textContent = t("map.loading");
    try {
      const { show } = await import("./map.ts");
      show(map, this.chosen, (place) => this.choose(place, t("where.tapped", { m: place.accuracy_m ?? 0 })));
    } catch {
      map.textContent = t("map.none");
      button.setAttribute("aria-expanded", "false");
    }
  }
}

export function round(degrees: number): number {
  return Math.round(degrees * 1e5) / 1e5;
}
