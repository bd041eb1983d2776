// Who is at this page: a bearer token. A token link carries it behind the `#`, which no server and no log ever sees.
// An officer's is kept as long as the tab; a volunteer's own, which must outlive a restart of the phone without a
// network, is kept in the browser.

const KEPT = "gotong.token";
const RENEWAL = "gotong.renewal";

export interface Session {
  token: string;
  role: string;
  subject: string;
  organisation: string | null;
  operations: string[];
  /** Milliseconds since 1970; null where the token does not say. */
  expires: number | null;
}

let memory: string | null = null;

/** Take the token out of the address (`#token=…`), where there is one, and keep it; says whether there was one. */
export function takeFromAddress(): boolean {
  const found = /[#&]token=([^&]+)/.exec(location.hash);
  if (found?.[1] === undefined) return false;
  history.replaceState(null, "", location.pathname + location.search);
  keepToken(decodeURIComponent(found[1]));
  keepRenewal(null);
  return true;
}

/** Keep a token, or forget all with null. `lasting`: beyond this tab, until it runs out or is forgotten. */
export function keepToken(token: string | null, lasting = false): void {
  memory = token;
  store("sessionStorage", KEPT, lasting ? null : token);
  if (lasting || token === null) store("localStorage", KEPT, token);
  if (token === null) keepRenewal(null);
}

/** What a provider gave beside the token to get the next one with; null: nothing. */
export function keepRenewal(renewal: string | null): void {
  store("sessionStorage", RENEWAL, renewal);
}

export function renewal(): string | null {
  return stored("sessionStorage", RENEWAL);
}

/** The session of this browser; null without a token, or with one that has run out. */
export function session(now: number = Date.now()): Session | null {
  const token = memory ?? stored("sessionStorage", KEPT) ?? stored("localStorage", KEPT);
  const read = token === null ? null : readToken(token);
  return read === null || (read.expires !== null && read.expires <= now) ? null : read;
}

// Storage may be forbidden: what is kept then lives as long as the page.
function store(where: "localStorage" | "sessionStorage", name: string, value: string | null): void {
  try {
    if (value === null) globalThis[where].removeItem(name);
    else globalThis[where].setItem(name, value);
  } catch {
    // as above
  }
}

function stored(where: "localStorage" | "sessionStorage", name: string): string | null {
  try {
    return globalThis[where].getItem(name);
  } catch {
    return null;
  }
}

/** What a token says of itself. Nothing is trusted by it: the server judges each request. */
export function readToken(token: string): Session | null {
  const body = token.split(".")[1];
  if (body === undefined) return null;
  try {
    const bytes = Uint8Array.from(atob(body.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
    const claims = JSON.parse(new TextDecoder().decode(bytes)) as Record<string, unknown>;
    return {
      token,
      role: String(claims["role"] ?? "public"),
      subject: String(claims["sub"] ?? ""),
      organisation: typeof claims["org"] === "string" ? claims["org"] : null,
      operations: Array.isArray(claims["operations"]) ? claims["operations"].map(String) : [],
      expires: typeof claims["exp"] === "number" ? claims["exp"] * 1000 : null,
    };
  } catch {
    return null;
  }
}
