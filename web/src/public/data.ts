// What the public may see, asked for as the public: without a token, also in an officer's browser.

export interface Operation {
  id: string;
  title: string;
  exercise: boolean;
  open: boolean;
  timezone: string;
}

export interface Incident {
  id: string;
  title: string;
  hazard: string | null;
  severity: number | null;
  evidence: string;
  people: Record<string, string | null>;
  admin: string | null;
  /** lon, lat of the middle of a wide cell; null where no place is known. */
  point: [number, number] | null;
  updated_at: string;
  exercise: boolean;
}

export interface Warning {
  id: string;
  hazard: string | null;
  severity: number | null;
  texts: { language: string; event: string | null; headline: string | null; description: string | null; instruction: string | null }[];
  sender_name: string | null;
  expires_at: string;
  area: { description: string | null };
  cap: string;
}

export interface Need {
  item?: string;
  skill?: string;
  unit: string;
  label: string;
  severity: number | null;
  gap: string;
}

export interface Report {
  as_of: string;
  exercise: boolean;
  timezone: string;
  totals: {
    reports: string;
    incidents_open: string;
    people: Record<string, string>;
    damage: Record<string, string>;
  };
  needs: Need[];
}

export interface Everything {
  operations: Operation[];
  incidents: Incident[];
  more: boolean;
  warnings: Warning[];
  report: Report | null;
}

const SHOWN = 200;

/** All that the page shows of an operation; null: of all that are no exercise. Throws when anything cannot be had. */
export async function everything(operation: string | null, lang: string): Promise<Everything> {
  const of = operation === null ? "" : `&operation=${encodeURIComponent(operation)}`;
  const [operations, incidents, warnings, report] = await Promise.all([
    ask<{ operations: Operation[] }>("/v1/operations?limit=100"),
    ask<Features<Incident>>(`/v1/incidents?status=open&sort=priority&limit=${SHOWN}${of}`),
    ask<Features<Warning>>(`/v1/warnings?active=true${of}`),
    ask<Report>(`/v1/sitreps?format=json&lang=${lang}${of}`, true),
  ]);
  return {
    operations: operations?.operations ?? [],
    incidents:
      incidents?.features.map(({ properties, geometry }) => ({ ...properties, point: geometry?.coordinates ?? null })) ?? [],
    more: (incidents?.links ?? []).length > 0,
    warnings: warnings?.features.map((feature) => feature.properties) ?? [],
    report,
  };
}

interface Features<T> {
  features: { properties: T; geometry: { coordinates: [number, number] } | null }[];
  links: unknown[];
}

/** `missing`: a 404 is an answer, too: nothing is known yet. */
async function ask<T>(path: string, missing = false): Promise<T | null> {
  const answer = await fetch(path, {
    headers: { Accept: "application/json" },
    credentials: "omit",
    signal: AbortSignal.timeout(20_000),
  });
  if (missing && answer.status === 404) return null;
  if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
  return (await answer.json()) as T;
}

/** The operations to choose from: those that are open, and not the everyday one, which all the others leave room for. */
export function choices(operations: readonly Operation[]): Operation[] {
  return operations.filter((operation) => operation.open && operation.id !== "standing");
}

/** The text of a warning in the reader's language, else the first. */
export function textOf(warning: Warning, lang: string): Warning["texts"][number] | undefined {
  return warning.texts.find((text) => text.language.toLowerCase().startsWith(lang)) ?? warning.texts[0];
}

/** What is still missing, the most severe first; without what nothing is missing of. */
export function missing(needs: readonly Need[]): Need[] {
  return needs.filter((need) => need.gap !== "0").sort((a, b) => (b.severity ?? 0) - (a.severity ?? 0));
}

/** A band such as `2000-4999` with the language's own digit groups and a dash. */
export function band(text: string | number, number: (value: number) => string): string {
  return String(text)
    .split("-")
    .map((part) => (/^\d+$/.test(part) ? number(Number(part)) : part))
    .join("–");
}
