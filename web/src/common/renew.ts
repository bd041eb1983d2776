// A provider's tokens last minutes, a duty lasts hours: the next one is asked for in good time. Loaded only by a page
// whose session came from a provider.

import { call, Refused } from "./api.ts";
import { keepRenewal, keepToken, renewal, session } from "./session.ts";

/** Ask for the next token when a quarter of this one's time is left, at least a second from now. */
export function renewIn(expires: number, now: number, life: number): number {
  return Math.max(1_000, expires - now - Math.max(life / 4, 5_000));
}

/** Keep the session alive from now on; `onLost`: the provider gives no more, one has to log in again. */
export function keepFresh(onLost: () => void): void {
  const expires = session()?.expires ?? null;
  if (renewal() === null || expires === null) return;
  setTimeout(() => void renew(onLost), renewIn(expires, Date.now(), expires - Date.now()));
}

async function renew(onLost: () => void): Promise<void> {
  const kept = renewal();
  if (kept === null) return;
  try {
    const granted = await call<{ token: string; refresh_token?: string }>("/v1/login/token", {
      body: { grant: "refresh", refresh_token: kept },
    });
    keepToken(granted.token);
    keepRenewal(granted.refresh_token ?? kept);
    keepFresh(onLost);
  } catch (error) {
    if (!(error instanceof Refused) || !error.passing) {
      keepRenewal(null);
      onLost();
    } else setTimeout(() => void renew(onLost), 5_000);
  }
}
