// Where to go after the login: a page of ours, whatever the address says.

/** A path on our origin; `/` for everything else. */
export function safePath(asked: string | null, origin: string): string {
  if (asked === null || !asked.startsWith("/") || asked.startsWith("//")) return "/";
  try {
    const address = new URL(asked, origin);
    return address.origin === origin ? address.pathname + address.search : "/";
  } catch {
    return "/";
  }
}

/** The token in what a person pasted: the token itself, or the whole link that carries it. */
export function tokenIn(pasted: string): string | null {
  const found = /(?:[#&]token=|^\s*)([\w-]+\.[\w-]+\.[\w-]+)\s*$/.exec(pasted);
  return found?.[1] ?? null;
}
