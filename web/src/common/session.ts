// Who is at this page: a bearer token, kept in this browser. A token link carries it behind the `#`, which no server
// and no log ever sees.

const KEPT = "gotong.token";

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

/** Take the token out of the address (`#token=…`), where there is one, and keep it. */
export function takeFromAddress(): void {
  const found = /[#&]token=([^&]+)/.exec(location.hash);
  if (found?.[1] === undefined) return;
  keepToken(decodeURIComponent(found[1]));
  history.replaceState(null, "", location.pathname + location.search);
}

export function keepToken(token: string | null): void {
  memory = token;
  try {
    if (token === null) localStorage.removeItem(KEPT);
    else localStorage.setItem(KEPT, token);
  } catch {
    // storage may be forbidden: the token then lives as long as the page
  }
}

/** The session of this browser; null without a token, or with one that has run out. */
export function session(now: number = Date.now()): Session | null {
  let token = memory;
  if (token === null) {
    try {
      token = localStorage.getItem(KEPT);
    } catch {
      return null;
    }
  }
  const read = token === null ? null : readToken(token);
  return read === null || (read.expires !== null && read.expires <= now) ? null : read;
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
