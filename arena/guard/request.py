"""What the guard reads of a request: path, method and a dozen raw headers, and whether its framing is sound."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from arena.errors import BadRequest
from arena.exchange import Caller
from arena.guard.asgi import Refused, Scope
from arena.keys import Key

READ_HEADERS: Final = frozenset(
    {
        b"host",
        b"authorization",
        b"x-api-key",
        b"cookie",
        b"origin",
        b"sec-fetch-site",
        b"accept",
        b"content-length",
        b"content-encoding",
        b"transfer-encoding",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-request-id",
        b"access-control-request-method",
        b"access-control-request-headers",
    }
)
LENGTH_DIGITS: Final = 18
# what is safe in headers, in lines of a log and in whatever looks for them there
_ID: Final = re.compile(rb"[A-Za-z0-9._~:/+=@#|-]{1,128}")
SECURE: Final = ("https", "wss")


class Request(Struct, eq=False):
    """One request as the guard sees it, with the `path` that is judged; `found` are the headers that it reads.

    `address` is where the caller sits, `peer` the other end of the connection if that is another, `caller` under which
    word it is counted, `key` the named key it has brought, `visitor` the name its browser was given, `allowed_origin`
    the configured web origin it comes from; `trusted`: it has brought the token, an admin's key or a session that one
    of them opened; `forwarded_host` what a trusted proxy was asked for. The guard fills them in as it finds out.
    `given_id` is the client's own X-Request-ID, where that is a sound one: then it is the `id`.
    """

    __repr__ = object.__repr__  # what a request holds is not for the log

    id: str
    path: str
    method: str
    query: bytes
    https: bool
    found: Mapping[bytes, list[bytes]]
    address: str = ""
    caller: str | bytes = ""
    key: Key | None = None
    allowed_origin: bytes | None = None
    visitor: str = ""
    peer: str = ""
    trusted: bool = False
    given_id: str = ""
    forwarded_host: bytes = b""

    @classmethod
    def read(cls, scope: Scope, path: str, request_id: str) -> Request:
        """The request of an ASGI scope."""
        found: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            if name in READ_HEADERS:
                found.setdefault(name, []).append(value)
        method = scope.get("method", "WEBSOCKET")
        given = found.get(b"x-request-id", ())
        given_id = given[0].decode("ascii") if len(given) == 1 and _ID.fullmatch(given[0]) else ""
        query, https = scope.get("query_string", b""), scope.get("scheme") in SECURE
        return cls(given_id or request_id, path, method, query, https, found, given_id=given_id)

    def as_caller(self) -> Caller:
        """Who asks, for those who answer."""
        key, place = self.key, (self.peer, self.forwarded_host)
        if key is None:
            return Caller(self.address, self.caller, self.id, self.https, "", None, self.visitor, *place)
        return Caller(self.address, self.caller, self.id, self.https, key.name, key.models, "", *place)

    def one(self, name: bytes) -> bytes | None:
        """The header's value: the last one, should it have come twice."""
        values = self.found.get(name)
        return values[-1] if values else None

    @property
    def wants_page(self) -> bool:
        """Is a person waiting in a browser, who can sign in?"""
        return self.method in ("GET", "HEAD") and b"text/html" in (self.one(b"accept") or b"")

    def check_framing(self) -> None:
        """Raises Refused (400) when two servers could disagree on where this request ends."""
        lengths = self.found.get(b"content-length", [])
        encodings = self.found.get(b"transfer-encoding", [])
        if not lengths and not encodings:
            return
        if encodings and (lengths or len(encodings) > 1 or encodings[0].lower() != b"chunked"):
            raise Refused(BadRequest("Transfer-Encoding must be chunked alone, without Content-Length"))
        if lengths and (len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > LENGTH_DIGITS):
            raise Refused(BadRequest("Content-Length must be one number"))
