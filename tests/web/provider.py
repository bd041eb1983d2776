"""A small OpenID provider for the tests: discovery, code flow with PKCE, keys. What it is asked is checked, not believed."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

CLIENT = "gotong-pages"
AUDIENCE = "gotong"


@dataclass
class Provider:
    """Who logs in next, and what has passed. `claims` None: the person cancels at the provider."""

    issuer: str = ""
    claims: dict[str, Any] | None = field(default_factory=lambda: {"role": "operator", "sub": "petugas-1"})
    expires_in: int = 3600
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    refreshes: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys-are-here",
        }

    def keys(self) -> dict[str, Any]:
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return {"keys": [public | {"kid": "one", "use": "sig", "alg": "RS256"}]}

    def authorize(self, asked: dict[str, str]) -> str:
        """Where the browser is sent back to."""
        if asked.get("client_id") != CLIENT or asked.get("code_challenge_method") != "S256":
            self.refused.append("authorize")
            raise ValueError("unknown client, or no PKCE")
        answer = {"state": asked["state"]}
        if self.claims is None:
            answer["error"] = "access_denied"
        else:
            code = uuid4().hex
            self.codes[code] = asked
            answer["code"] = code
        return f"{asked['redirect_uri']}?{urlencode(answer)}"

    def token(self, form: dict[str, str]) -> dict[str, Any] | None:
        """The token for a code, which is good once and for whoever holds its verifier; None: refused."""
        if form.get("grant_type") == "refresh_token":
            good = form.get("refresh_token") in self.refreshes
            self.refreshes.discard(form.get("refresh_token", ""))
        else:
            asked = self.codes.pop(form.get("code", ""), None)
            digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
            good = (
                asked is not None
                and asked["redirect_uri"] == form.get("redirect_uri")
                and asked["code_challenge"] == base64.urlsafe_b64encode(digest).decode().rstrip("=")
            )
        if not good or form.get("client_id") != CLIENT:
            self.refused.append("token")
            return None
        refresh = uuid4().hex
        self.refreshes.add(refresh)
        return {
            "access_token": self.sign(),
            "token_type": "Bearer",
            "expires_in": self.expires_in,
            "refresh_token": refresh,
        }

    def sign(self, **claims: Any) -> str:
        now = int(time.time())
        body = {"iss": self.issuer, "aud": AUDIENCE, "iat": now, "exp": now + self.expires_in}
        return jwt.encode(body | (self.claims or {}) | claims, self.key, algorithm="RS256", headers={"kid": "one"})


@contextmanager
def running_provider() -> Iterator[Provider]:
    """A provider on a free port of this machine."""
    provider = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path == "/.well-known/openid-configuration":
                self.say(200, provider.metadata())
            elif parts.path == "/keys-are-here":
                self.say(200, provider.keys())
            elif parts.path == "/authorize":
                try:
                    where = provider.authorize(dict(parse_qsl(parts.query)))
                except ValueError as error:
                    self.say(400, {"error": str(error)})
                else:
                    self.send_response(302)
                    self.send_header("Location", where)
                    self.end_headers()
            else:
                self.say(404, {})

        def do_POST(self) -> None:
            form = dict(parse_qsl(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()))
            said = provider.token(form) if self.path == "/token" else None
            self.say(400, {"error": "invalid_grant"}) if said is None else self.say(200, said)

        def say(self, status: int, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    # Another name than the pages' own, so that the browser takes it for another site.
    provider.issuer = f"http://localhost:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
