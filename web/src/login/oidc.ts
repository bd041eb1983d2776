// Logging in at an OpenID provider: authorization code with PKCE. The code is exchanged by our own server, so that the
// page asks no other site; the verifier that binds the code to this tab never leaves it before.

import { call } from "../common/api.ts";

export interface Provider {
  issuer: string;
  client_id: string;
  scope: string;
  authorization_endpoint: string;
  audience: string | null;
}

export interface Granted {
  token: string;
  refresh_token?: string;
  expires_in?: number;
}

const KEPT = "gotong.login";

interface Begun {
  state: string;
  verifier: string;
}

/** Where the provider sends the browser back to; it must be registered there. */
export function redirectUri(): string {
  return `${location.origin}/login`;
}

/** The address at the provider to go to. What is needed on the way back is kept in this tab. */
export async function begin(provider: Provider, storage: Storage = sessionStorage): Promise<string> {
  const begun: Begun = { state: random(), verifier: random() };
  storage.setItem(KEPT, JSON.stringify(begun));
  const address = new URL(provider.authorization_endpoint);
  const query: Record<string, string> = {
    response_type: "code",
    client_id: provider.client_id,
    redirect_uri: redirectUri(),
    scope: provider.scope,
    state: begun.state,
    code_challenge: await challenge(begun.verifier),
    code_challenge_method: "S256",
  };
  if (provider.audience !== null) query["audience"] = provider.audience;
  for (const [name, value] of Object.entries(query)) address.searchParams.set(name, value);
  return address.href;
}

/** Whether the address is one that a provider sent the browser back to. */
export function isReturn(query: URLSearchParams): boolean {
  return query.has("state") && (query.has("code") || query.has("error"));
}

/** The token for what the provider sent back; null when it was refused there or was not asked for in this tab. */
export async function finish(query: URLSearchParams, storage: Storage = sessionStorage): Promise<Granted | null> {
  const kept = storage.getItem(KEPT);
  storage.removeItem(KEPT);
  const code = query.get("code");
  if (kept === null || code === null) return null;
  const begun = JSON.parse(kept) as Begun;
  if (query.get("state") !== begun.state) return null;
  return call<Granted>("/v1/login/token", {
    body: { grant: "code", code, verifier: begun.verifier, redirect_uri: redirectUri() },
  });
}

function random(): string {
  return base64url(crypto.getRandomValues(new Uint8Array(32)));
}

async function challenge(verifier: string): Promise<string> {
  return base64url(new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier))));
}

function base64url(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replaceAll("=", "");
}
