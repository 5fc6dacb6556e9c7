"""Who may talk to the review page: this machine's user, from the page itself.

The token of the address is exchanged for a cookie. Every request is checked before anything else looks at it: its Host (against
DNS rebinding), its Origin and Sec-Fetch-Site (against other pages in the same browser), the token, and the size of its body.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY = 8_000_000
"""Bytes of a request; a decision about 100,000 particles takes less."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
ENTER = (
    b'<!doctype html><html lang="en"><meta charset="utf-8"><link rel="icon" href="/static/icon.svg">'
    b'<meta http-equiv="refresh" content="0; url=/">'
    b'<title>Nephila</title><a href="/">Open the review page</a>'
)
"""Leads from the address with the token to the one without, so that the token stays out of what the page refers to."""


@dataclass
class Access:
    """The token, the names under which the server may be called, and codes that open the page once."""

    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    hosts: frozenset[str] = frozenset()
    once: set[str] = field(default_factory=set)
    cookie: str = "nephila_review"

    def opening_code(self) -> str:
        """A code that opens the page once: it may be seen in the list of processes, the token may not."""
        code = secrets.token_urlsafe(32)
        self.once.add(code)
        return code

    def admits(self, given: str) -> bool:
        """Whether a token or an opening code is right; the code is used up."""
        for code in tuple(self.once):
            if _same(given, code):
                self.once.discard(code)
                return True
        return _same(given, self.token)


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode())


class Guard:
    """ASGI middleware that refuses what does not come from the user's own page."""

    def __init__(self, app: App, access: Access) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, then hand it on; answers get the headers of the policy."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is None and scope["path"] == "/" and scope["query_string"]:
            refusal = await self._enter(scope, send)
            if refusal is None:
                return
        elif refusal is None and not self._has_cookie(headers):
            refusal = (401, "open the address that `nephila review` printed: it holds the token")
        if refusal is not None:
            await answer(send, refusal[0], refusal[1].encode(), b"text/plain; charset=utf-8")
            return
        await self.app(scope, _Limited(receive), _with_headers(send))

    def _refusal(self, scope: Scope, headers: dict[bytes, str]) -> tuple[int, str] | None:
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "only GET and POST are answered"
        hosts = [value for name, value in scope["headers"] if name.lower() == b"host"]
        if len(hosts) != 1 or headers.get(b"host", "").lower() not in self.access.hosts:
            return 421, "this server does not go by that name"
        origin = headers.get(b"origin")
        if origin is not None and origin.lower() != f"http://{headers[b'host'].lower()}":
            return 403, "requests from other pages are refused"
        site = headers.get(b"sec-fetch-site")
        entering = scope["path"] == "/" and scope["method"] == "GET" and scope["query_string"]
        if site not in (None, "same-origin", "none") and not entering:
            return 403, "requests from other pages are refused"
        if scope["method"] == "POST":
            if origin is None or headers.get(b"x-nephila") != "review":
                return 403, "decisions are taken from the review page alone"
            if headers.get(b"content-type", "").split(";")[0].strip() != "application/json":
                return 415, "a decision is JSON"
        length = headers.get(b"content-length", "0")
        if not (length.isascii() and length.isdecimal()) or int(length[:20]) > MAX_BODY:  # "²" is a digit too
            return 413, f"more than {MAX_BODY} bytes"
        return None

    def _has_cookie(self, headers: dict[bytes, str]) -> bool:
        try:
            jar = SimpleCookie(headers.get(b"cookie", ""))
        except CookieError:
            return False
        return self.access.cookie in jar and _same(jar[self.access.cookie].value, self.access.token)

    async def _enter(self, scope: Scope, send: Send) -> tuple[int, str] | None:
        """Exchange the token of the address for the cookie."""
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if not self.access.admits(given):
            return 401, "the token is wrong, or was used up; open the address that `nephila review` printed"
        cookie = f"{self.access.cookie}={self.access.token}; Path=/; HttpOnly; SameSite=Strict"
        await answer(send, 200, ENTER, b"text/html; charset=utf-8", [(b"set-cookie", cookie.encode())])
        return None


class _Limited:
    """A body that breaks off when it grows over the limit, whatever its headers promised."""

    def __init__(self, receive: Receive) -> None:
        self.receive = receive
        self.size = 0

    async def __call__(self) -> Message:
        message = await self.receive()
        self.size += len(message.get("body", b""))
        return {"type": "http.disconnect"} if self.size > MAX_BODY else message


def _with_headers(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = {name for name, _ in message["headers"]}
            extra = HEADERS if b"cache-control" in given else (*HEADERS, (b"cache-control", b"no-store"))
            message = {**message, "headers": [*message["headers"], *extra]}
        await send(message)

    return with_headers


async def answer(
    send: Send, status: int, body: bytes, kind: bytes, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    """A whole answer, with the headers of the policy."""
    start = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *(headers or [])]
    await _with_headers(send)({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})
