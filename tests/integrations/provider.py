"""A small OAuth2 and OpenID Connect provider on a real socket: "Sign in with your guild"."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

CLIENT_ID, CLIENT_SECRET = "portal", "portal-secret"


@dataclass
class Person:
    """Who sits before the provider's page and consents."""

    sub: str
    name: str
    email: str
    email_verified: bool = True

    @property
    def claims(self) -> dict[str, Any]:
        return {
            "sub": self.sub,
            "preferred_username": self.name,
            "email": self.email,
            "email_verified": self.email_verified,
        }


@dataclass
class Grant:
    person: Person
    redirect_uri: str
    challenge: str = ""


class Refused(Exception):
    """An answer of the provider's as OAuth2 has them, with its ``error``."""


class Provider:
    """Codes are good once, for the redirect address and the PKCE challenge that they were given for."""

    def __init__(self) -> None:
        self.url = ""
        #: Who consents; ``None`` turns back.
        self.person: Person | None = None
        self.codes: dict[str, Grant] = {}
        self.tokens: dict[str, Person] = {}
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def configuration(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "userinfo_endpoint": f"{self.url}/userinfo",
            "jwks_uri": f"{self.url}/jwks",
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
        }

    def jwks(self) -> dict[str, Any]:
        key = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return {"keys": [{**key, "kid": "1", "use": "sig", "alg": "RS256"}]}

    def authorize(self, query: dict[str, str]) -> str:
        """Where the browser is sent back to."""
        if query.get("client_id") != CLIENT_ID or query.get("response_type") != "code":
            raise Refused("unauthorized_client")
        if self.person is None:
            back = {"error": "access_denied"}
        else:
            back = {"code": secrets.token_urlsafe(8)}
            self.codes[back["code"]] = Grant(self.person, query["redirect_uri"], query.get("code_challenge", ""))
        if "state" in query:
            back["state"] = query["state"]
        return f"{query['redirect_uri']}{'&' if '?' in query['redirect_uri'] else '?'}{urlencode(back)}"

    def token(self, form: dict[str, str]) -> dict[str, Any]:
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            raise Refused("invalid_client")
        grant = self.codes.pop(form.get("code", ""), None)
        if grant is None or form.get("redirect_uri") != grant.redirect_uri:
            raise Refused("invalid_grant")
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if grant.challenge and base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != grant.challenge:
            raise Refused("invalid_grant")
        token, now = secrets.token_urlsafe(8), int(time.time())
        self.tokens[token] = grant.person
        claims = {"iss": self.url, "aud": CLIENT_ID, "iat": now, "exp": now + 300, **grant.person.claims}
        id_token = jwt.encode(claims, self.key, algorithm="RS256", headers={"kid": "1"})
        return {"access_token": token, "token_type": "Bearer", "expires_in": 300, "id_token": id_token}

    def userinfo(self, authorization: str) -> dict[str, Any]:
        person = self.tokens.get(authorization.removeprefix("Bearer "))
        if person is None:
            raise Refused("invalid_token")
        return person.claims


class Handler(BaseHTTPRequestHandler):
    provider: Provider

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        try:
            if url.path == "/authorize":
                self.send_response(302)
                self.send_header("Location", self.provider.authorize(dict(parse_qsl(url.query))))
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif url.path == "/userinfo":
                self.answer(200, self.provider.userinfo(self.headers.get("Authorization", "")))
            elif url.path == "/jwks":
                self.answer(200, self.provider.jwks())
            elif url.path == "/.well-known/openid-configuration":
                self.answer(200, self.provider.configuration())
            else:
                self.answer(404, {"error": "not_found"})
        except Refused as refusal:
            self.answer(401, {"error": str(refusal)})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        try:
            self.answer(200, self.provider.token(dict(parse_qsl(body))))
        except Refused as refusal:
            self.answer(400, {"error": str(refusal)})

    def answer(self, status: int, data: dict[str, Any]) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Nobody reads it."""


@contextmanager
def running() -> Iterator[Provider]:
    provider = Provider()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"provider": provider}))
    provider.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
