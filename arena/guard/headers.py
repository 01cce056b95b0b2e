"""The headers every answer leaves with."""

from __future__ import annotations

import re
from typing import Final

from arena.exchange import Headers, header_lines
from arena.guard.request import Request

# Gradio's start-up scripts are inline and its js= handlers are compiled from text: hence both unsafe words.
PAGE_POLICY: Final = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; media-src 'self' blob: data:; "
    "worker-src 'self' blob:; form-action 'self'; base-uri 'self'; object-src 'none'; frame-ancestors {frames}"
)
FORM_POLICY: Final = (
    "default-src 'none'; style-src '{style}'; form-action 'self'; base-uri 'none'; frame-ancestors {frames}"
)
SPACE_FRAMES: Final = "'self' https://huggingface.co https://*.hf.space"
API_PREFIXES: Final = ("/api/", "/olla/", "/v1/")
STREAMS: Final = (b"text/event-stream", b"application/x-ndjson")
NO_STORE: Final = (b"cache-control", b"no-store")
EXPOSED: Final = b", ".join([
    b"x-request-id", b"request-id", b"retry-after", b"ratelimit-limit", b"ratelimit-remaining", b"ratelimit-reset",
    b"server-timing", b"x-olla-endpoint", b"x-olla-backend-type", b"x-olla-model", b"x-olla-request-id",
    b"x-olla-response-time", b"x-olla-total-time", b"x-olla-routing-strategy", b"x-olla-routing-decision",
    b"x-olla-routing-reason", b"x-olla-mode", b"x-olla-sticky-session", b"x-olla-sticky-key-source",
    b"x-olla-session-id", b"x-olla-endpoints-up", b"x-olla-fleet", b"x-olla-digest-drift", b"x-olla-tried",
    b"x-olla-queue-position", b"x-olla-queue-time", b"x-olla-resolved-model", b"x-olla-unavailable",
])  # fmt: skip
"""Pages of configured origins may read these; a star would not do for requests with an Authorization header."""
ALLOWED: Final = b"authorization, content-type, x-api-key"
TOKENS: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*,[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")
MAX_ASKED_BYTES: Final = 2048
MAX_DRESSED: Final = 128
"""Kinds of answers whose headers are remembered; those of a host may be 64 KiB."""


class SafetyHeaders:
    """What is added to and taken from the headers of an answer. `on_a_space`: the Hub shows the page in a frame."""

    def __init__(self, *, on_a_space: bool) -> None:
        self._frames = SPACE_FRAMES if on_a_space else "'self'"
        self._base: Headers = [
            (b"x-content-type-options", b"nosniff"),
            (b"cross-origin-opener-policy", b"same-origin"),
            (b"cross-origin-resource-policy", b"same-origin"),
        ]
        if not on_a_space:
            # it knows no list of hosts; frame-ancestors does
            self._base.append((b"x-frame-options", b"SAMEORIGIN"))
        self._page: Headers = [
            *self._base,
            (b"content-security-policy", PAGE_POLICY.format(frames=self._frames).encode()),
            (b"referrer-policy", b"no-referrer"),
        ]
        self._lines: dict[tuple[bool, bytes | None, tuple[tuple[bytes, bytes], ...]], bytes] = {}
        ours = {*(name for name, _ in self._page), b"x-frame-options", b"x-request-id", b"x-accel-buffering"}
        self._ours, self._ours_in_api = frozenset(ours), frozenset({*ours, b"cache-control"})

    def form(self, request: Request, style: str) -> Headers:
        """The headers of a page without scripts; `style` is the hash of its one style sheet.

        Under no-referrer a browser posts a form with `Origin: null`, which is nobody's: hence same-origin.
        """
        policy = FORM_POLICY.format(style=style, frames=self._frames).encode()
        return [
            *self._base,
            (b"content-security-policy", policy),
            (b"referrer-policy", b"same-origin"),
            NO_STORE,
            (b"x-request-id", request.id.encode()),
        ]

    def own(self, request: Request) -> Headers:
        """The headers of an answer the guard gives itself."""
        return [*self._steady(request, no_store=True), (b"x-request-id", request.id.encode())]

    def dress(self, request: Request, headers: Headers) -> Headers:
        """The application's headers as they leave."""
        in_api = request.path.startswith(API_PREFIXES)
        dressed = self._kept(headers, in_api=in_api) + self._steady(request, no_store=in_api)
        dressed.append((b"x-request-id", request.id.encode()))
        return dressed

    def dress_lines(self, request: Request, headers: Headers) -> bytes:
        """The same, written out: many answers have the same headers."""
        in_api = request.path.startswith(API_PREFIXES)
        key = in_api, request.allowed_origin, tuple(headers)
        lines = self._lines.get(key)
        if lines is None:
            if len(self._lines) >= MAX_DRESSED:
                self._lines.clear()
            kept = self._kept(headers, in_api=in_api) + self._steady(request, no_store=in_api)
            lines = self._lines[key] = header_lines(kept)
        return b"%bx-request-id: %b\r\n" % (lines, request.id.encode())

    def _steady(self, request: Request, *, no_store: bool) -> Headers:
        """What we add to every answer to requests from one place."""
        headers = [*self._page, NO_STORE] if no_store else self._page
        return headers + cross_origin(request.allowed_origin) if request.allowed_origin else headers

    def _kept(self, headers: Headers, *, in_api: bool) -> Headers:
        """What of the application's own headers leaves."""
        ours = self._ours_in_api if in_api else self._ours
        kept = []
        for pair in headers:
            name = pair[0]
            if name in ours or name.startswith(b"access-control-"):
                continue
            kept.append(pair)
            if name == b"content-type" and pair[1].startswith(STREAMS):
                # a reverse proxy must not collect a stream before it passes it on
                kept.append((b"x-accel-buffering", b"no"))
        return kept


def cross_origin(origin: bytes) -> Headers:
    """The headers that let a page of `origin` read an answer."""
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", EXPOSED),
        (b"vary", b"origin"),
    ]


def preflight(asked: bytes | None) -> Headers:
    """The headers that let a page send the request it asked for, with the headers `asked` for.

    Clients of OpenAI and Anthropic send many of their own, which change from release to release.
    """
    fits = asked is not None and len(asked) <= MAX_ASKED_BYTES and TOKENS.fullmatch(asked)
    return [
        (b"access-control-allow-methods", b"GET, POST, PUT, DELETE, HEAD, OPTIONS"),
        (b"access-control-allow-headers", asked if asked is not None and fits else ALLOWED),
        (b"access-control-max-age", b"600"),
    ]
