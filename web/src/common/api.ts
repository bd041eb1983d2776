// Calls to our own origin. A refusal becomes a `Refused` that says in plain words what is wrong.

import { session } from "./session.ts";

export interface Fault {
  pointer: string;
  detail: string;
}

/** The server answered no; `status` 0: no answer came at all. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
    readonly faults: Fault[] = [],
    readonly retryAfterS: number | null = null,
    /** The whole problem document: some carry more than every one has. */
    readonly extra: Record<string, unknown> = {},
  ) {
    super(detail);
  }

  /** Whether the same call may succeed later without any change. */
  get passing(): boolean {
    return this.status === 0 || this.status === 429 || this.status >= 500 || this.retryAfterS !== null;
  }
}

export interface Call {
  method?: string;
  body?: unknown;
  /** Sent as Idempotency-Key: a repeat with the same key gives the first answer again. */
  key?: string;
  headers?: Record<string, string>;
  signal?: AbortSignal;
  /** Milliseconds until no answer counts as none; 20,000 unless told. */
  timeout?: number;
}

/** Call the API and read its JSON.
 *
 * @throws {Refused} for every answer that is not a success, and for none.
 */
export async function call<T>(path: string, options: Call = {}): Promise<T> {
  const answer = await send(path, options);
  if (answer.status === 204) return undefined as T;
  return (await answer.json()) as T;
}

/** As `call`, giving the answer itself. */
export async function send(path: string, options: Call = {}): Promise<Response> {
  const headers: Record<string, string> = { Accept: "application/json", ...options.headers };
  const token = session()?.token;
  if (token !== undefined) headers["Authorization"] = `Bearer ${token}`;
  if (options.key !== undefined) headers["Idempotency-Key"] = options.key;
  let body: string | undefined;
  if (options.body !== undefined) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(options.body);
  }
  const limit = AbortSignal.timeout(options.timeout ?? 20_000);
  let answer: Response;
  try {
    answer = await fetch(path, {
      method: options.method ?? (body === undefined ? "GET" : "POST"),
      headers,
      body: body ?? null,
      signal: options.signal === undefined ? limit : AbortSignal.any([options.signal, limit]),
    });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Refused(0, "unreachable", String(error));
  }
  if (answer.ok) return answer;
  throw await refusal(answer);
}

async function refusal(answer: Response): Promise<Refused> {
  const wait = Number(answer.headers.get("Retry-After") ?? NaN);
  let problem: { type?: string; code?: string; title?: string; detail?: string; errors?: Fault[] } = {};
  try {
    problem = (await answer.json()) as typeof problem;
  } catch {
    // a proxy may answer in a form of its own; the status alone must do
  }
  const code = problem.code ?? problem.type?.split(/[/:]/).pop() ?? String(answer.status);
  return new Refused(
    answer.status,
    code,
    problem.detail ?? problem.title ?? `HTTP ${answer.status}`,
    problem.errors ?? [],
    Number.isFinite(wait) ? wait : null,
    problem,
  );
}

/** A key that no other call has: for Idempotency-Key. */
export function newKey(): string {
  // randomUUID is missing where the page came over plain HTTP from another machine, as at a post without certificates.
  if (typeof crypto.randomUUID === "function") return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
