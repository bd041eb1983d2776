// Texts come from catalogues (web/locales), Indonesian first. A page takes in the two catalogues it needs in the
// language that is chosen; the other language is a file of its own that is loaded only when asked for.

export type Catalogue = Record<string, string>;
export type Language = "id" | "en";

const RIGHT_TO_LEFT = new Set(["ar", "fa", "he", "ur"]);
const KEPT = "gotong.language";

let texts: Catalogue = {};
let current: Language = "id";

/** The language that was chosen: by `?lang=`, else by an earlier choice, else Indonesian unless the browser speaks
 * English only. */
export function chosen(): Language {
  const asked = new URLSearchParams(location.search).get("lang") ?? kept();
  if (asked === "id" || asked === "en") return asked;
  return navigator.languages.some((tag) => tag.startsWith("id") || tag.startsWith("ms")) ? "id" : first();
}

function first(): Language {
  return navigator.language.startsWith("en") ? "en" : "id";
}

function kept(): string | null {
  try {
    return localStorage.getItem(KEPT);
  } catch {
    return null; // storage may be forbidden; the choice then holds for this page only
  }
}

/** Set the language of the document and the texts that `t` gives. */
export function use(language: Language, ...catalogues: Catalogue[]): void {
  current = language;
  texts = Object.assign({}, ...catalogues) as Catalogue;
  document.documentElement.lang = language;
  document.documentElement.dir = RIGHT_TO_LEFT.has(language) ? "rtl" : "ltr";
}

/** Remember the choice of language. */
export function keep(language: Language): void {
  try {
    localStorage.setItem(KEPT, language);
  } catch {
    // as in `kept`
  }
}

export function language(): Language {
  return current;
}

/** A text of the catalogue with `{name}` filled in; an unknown key shows as itself, which a test forbids. */
export function t(key: string, values?: Record<string, string | number>): string {
  const text = texts[key] ?? key;
  if (values === undefined) return text;
  return text.replace(/\{(\w+)\}/g, (whole, name: string) => {
    const value = values[name];
    return value === undefined ? whole : typeof value === "number" ? number(value) : value;
  });
}

/** Whether the catalogue has this key: for words that grow, such as hazards and skills. */
export function known(key: string): boolean {
  return key in texts;
}

const FORMATS = new Map<string, Intl.NumberFormat | Intl.DateTimeFormat>();

export function number(value: number): string {
  const key = `${current} number`;
  let format = FORMATS.get(key) as Intl.NumberFormat | undefined;
  if (format === undefined) FORMATS.set(key, (format = new Intl.NumberFormat(locale())));
  return format.format(value);
}

function locale(): string {
  return current === "id" ? "id-ID" : "en-GB";
}

const ZONES: Record<string, string> = {
  "Asia/Jakarta": "WIB",
  "Asia/Pontianak": "WIB",
  "Asia/Makassar": "WITA",
  "Asia/Jayapura": "WIT",
};

/** What a zone is called in Indonesia (WIB, WITA, WIT), else its city. */
export function zoneName(zone: string): string {
  return ZONES[zone] ?? zone.split("/").pop()?.replaceAll("_", " ") ?? zone;
}

let zone = "Asia/Jakarta";

/** Times are shown in this zone from now on: the operation's. */
export function useZone(name: string): void {
  zone = name;
}

/** An instant as day and time with its zone, in the operation's zone. */
export function when(instant: string | number | Date): string {
  return `${dateFormat("day", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" }).format(new Date(instant))} ${zoneName(zone)}`;
}

/** An instant as time of day with its zone. */
export function clockTime(instant: string | number | Date): string {
  return `${dateFormat("clock", { hour: "2-digit", minute: "2-digit" }).format(new Date(instant))} ${zoneName(zone)}`;
}

function dateFormat(name: string, options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const key = `${current} ${zone} ${name}`;
  let format = FORMATS.get(key) as Intl.DateTimeFormat | undefined;
  if (format === undefined) {
    FORMATS.set(key, (format = new Intl.DateTimeFormat(locale(), { ...options, timeZone: zone, hourCycle: "h23" })));
  }
  return format;
}

/** How long ago, in the shortest form that is still true: 40 s, 12 m, 3 h, 5 d. */
export function ago(instant: string | number | Date, now: number = Date.now()): string {
  const seconds = Math.max(0, Math.round((now - new Date(instant).getTime()) / 1000));
  if (seconds < 60) return t("ago.seconds", { n: seconds });
  if (seconds < 3600) return t("ago.minutes", { n: Math.floor(seconds / 60) });
  if (seconds < 172800) return t("ago.hours", { n: Math.floor(seconds / 3600) });
  return t("ago.days", { n: Math.floor(seconds / 86400) });
}
