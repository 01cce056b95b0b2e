"""The guard: pure ASGI, around everything, deny by default.

It reads the scope's path and raw headers only: a URL put together from them could be bent by a Host header. A stream
costs it one plain function call a message.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from arena.errors import (
    ArenaError,
    BadRequest,
    Busy,
    Forbidden,
    PayloadTooLarge,
    ShuttingDown,
    TooManyRequests,
    Unauthorized,
    UnsupportedMedia,
)
from arena.exchange import SHARED, Begin, Connection, Headers, Inbound, Refusals, Session
from arena.guard.asgi import App, Carrier, Message, Receive, Refused, Scope, Send, Told, answer, error_body
from arena.guard.body import BoundedBody
from arena.guard.credentials import Credentials, presented
from arena.guard.headers import API_PREFIXES, SafetyHeaders, preflight
from arena.guard.origin import (
    Hosts,
    client_address,
    forwarded_host,
    is_own,
    network_key,
    networks,
    same_origin,
    web_origins,
    within,
)
from arena.guard.pages import OwnPages
from arena.guard.rate import Answers, Rate, refused_key
from arena.guard.request import SECURE, Request
from arena.guard.visitors import Visitors
from arena.keys import Keys
from arena.keys import Scope as Right
from arena.log import request_id
from arena.settings import Settings

log = logging.getLogger(__name__)

HEALTH: Final = "/api/health"
READY: Final = "/internal/health"
PUBLIC_PATHS: Final = frozenset({HEALTH, READY, "/signin", "/robots.txt"})
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
# files of the page: a browser fetches a hundred of them at once, and they cost next to nothing
ASSETS: Final = ("/assets/", "/static/", "/svelte/", "/theme.css", "/favicon.ico", "/gradio_api/file=")
PAGE: Final = "/gradio_api/"
# files of models, which nobody keeps in memory: posted, they are handed on as they come
BLOBS: Final = tuple(f"/olla/{prefix}api/blobs/" for prefix in ("ollama/", "ollama//", "proxy/", "proxy//"))
BLOB_BYTES: Final = 1024**4
UPLOAD: Final = "/gradio_api/upload"
FORM_OVERHEAD_BYTES: Final = 64 * 1024
# a Space is reached through the Hub's own proxies only, and those have private addresses
SPACE_PROXIES: Final = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "fc00::/7")
SHORT_TOKEN: Final = 16
JUDGED: Final = "judged"
PLACE: Final = "arena.place"
NOWHERE: Final = ("", "", b"")
_OF_THE_SERVER: Final[dict[int, type[ArenaError]]] = {500: ArenaError, 503: Busy}


class Guard:
    """Wraps `app`. Before it: host, framing, origin, token, limits. After it: the headers of safety.

    `direct` tells of a method and a path what answers them straight on a connection, past ASGI, if anything does; on a
    server without that, `carrier` brings such an answer out over ASGI, past `app` all the same (None: through `app`).
    `needs` which scope a named key of `keys` must have for them (None: any key will do).
    `told` is how the clients of a path want to be told that they are refused, where they want it otherwise than plain.
    `on_drain` is called once when the server stops: it has every running answer end. `on_reload` has the configuration
    read again. What is turned away is counted in `refusals`; `visitors` knows browsers. `clock` tells seconds.
    Raises SettingsError for a wrong ARENA_CORS_ORIGINS or ARENA_TRUSTED_PROXIES.
    """

    def __init__(
        self,
        app: App,
        settings: Settings,
        *,
        direct: Callable[[str, str], Begin | None] = lambda method, path: None,
        carrier: Carrier | None = None,
        keys: Keys | None = None,
        needs: Callable[[str, str], Right | None] = lambda method, path: "admin",
        told: Told = lambda path, request_id, error: None,
        refusals: Refusals | None = None,
        visitors: Visitors | None = None,
        on_drain: Callable[[], None] = lambda: None,
        on_reload: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        on_a_space = settings.space_id is not None
        token = settings.token.get_secret_value() if settings.token else None
        if token is not None and len(token) < SHORT_TOKEN:
            log.warning("WEB_CHAT_TOKEN has fewer than %d characters: it can be guessed", SHORT_TOKEN)
        self.app = app
        self.draining = False
        self._direct, self._carrier, self._told = direct, carrier, told
        self._on_drain = on_drain
        self._on_reload = on_reload
        # request ids need only tell lines of a log apart, so they may be cheap
        self._process, self._numbers = secrets.token_hex(4), itertools.count(1)
        self._root_path = settings.root_path
        self._hosts = Hosts(settings.host, [*settings.allowed_hosts, *filter(None, [settings.space_host])])
        self._origins = web_origins(settings.cors_origins)
        self._proxies = networks(settings.trusted_proxies or (SPACE_PROXIES if on_a_space else ()))
        self._keys, self._needs = keys, needs
        self._credentials = Credentials(token, clock, keys)
        self._refusals = refusals or Refusals()
        self._refusals.held = self._credentials.held
        self._visitors = visitors
        self._may_be_open = settings.allow_open or on_a_space
        self._rated = settings.shared
        per_minute, burst = settings.requests_per_minute, settings.request_burst
        self._rate = Rate(per_minute, burst, clock)
        # opening the page alone takes a dozen of these
        self._page_rate = Rate(5 * per_minute, 5 * burst, clock)
        self._answers = Answers(settings.answers_per_caller, in_all=1000)
        self._headers = SafetyHeaders(on_a_space=on_a_space)
        self._pages = OwnPages(
            self._credentials, self._headers, self._refusals, root_path=self._root_path, framed=on_a_space
        )
        self._body_limits = _body_limits(settings)
        self._least_limit = min(size for _, size in self._body_limits)

    def reload(self) -> None:
        """Have the configuration read again."""
        self._on_reload()

    def drain(self) -> None:
        """From now on refuse new requests, and have the running ones end: the server is stopping."""
        if not self.draining:
            self.draining = True
            self._on_drain()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope; a kind that cannot be judged is not let in."""
        kind = scope["type"]
        if kind == "http":
            await self._http(scope, receive, send)
        elif kind == "websocket":
            await self._websocket(scope, receive, send)
        elif kind == "lifespan":
            await self.app(scope, receive, send)

    def direct(self, method: str, path: str) -> Begin | None:
        """What answers this request straight on its connection, if anything does."""
        return self._direct(method, self._inner(path) if self._root_path else path)

    def carry(self, begin: Begin, scope: dict[str, Any], body: bytes, connection: Connection) -> Session | None:
        """Check a whole request, as on the way through ASGI, and have `begin` answer it on its `connection`."""
        shared: dict[str, Request] | None = scope.get(SHARED)
        seen = None if shared is None else shared.get(JUDGED)
        request = self._read(scope) if seen is None else self._again(seen, scope)
        connection.request_id = request.id
        try:
            if seen is None:
                self._check_head(request)
                if shared is not None:
                    shared[JUDGED] = request
            self._check_caller(request)
            if len(body) > self._least_limit and len(body) > self._body_limit(request):
                raise self._too_large(request)
            if self._rated or request.key is not None:
                connection.over = self._count(request)
        except Refused as refused:
            self._note(request, refused)
            headers, text = self._refusal(request, refused)
            connection.start(refused.error.status, [(b"content-length", b"%d" % len(text)), *headers])
            connection.write(text)
            connection.end()
            return None
        connection.dress = partial(self._headers.dress_lines, request)
        inbound = Inbound(request.method, request.path, request.query, scope["headers"], request.as_caller())
        return begin(inbound, body, connection)

    def refusal(self, path: str, status: int, message: str, code: str) -> tuple[Headers, bytes]:
        """Headers and body of what a server refuses by itself; of the request no more than its `path` may be known."""
        request = Request(f"{self._process}{next(self._numbers):08x}", self._inner(path), "", b"", False, {})
        error = _OF_THE_SERVER.get(status, BadRequest)(message, code=code)
        self._refusals.counts[code] += 1
        return self._worded(request, error, [])

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = self._read(scope)
        scope["path"] = request.path  # what was judged is what is served
        over: Callable[[], object] | None = None
        try:
            self._check_server(scope)
            self._check_head(request)
            if self._is_preflight(request):
                await self._answer_preflight(request, send)
                return
            self._check_caller(request)
            if request.path in self._pages.paths:
                await self._pages.serve(request, receive, send)
                return
            body = self._bounded(request, receive, send)
            over = self._count(request)
        except Refused as refused:
            await self._refuse(request, refused, send)
            return
        try:
            await self._let_in(request, scope, body.receive if body else receive, body.send if body else send)
        finally:
            if over is not None:
                over()

    def _let_in(self, request: Request, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Have a request answered: past the application's routers, if it is one that could do without ASGI."""
        if self._carrier is not None and b"%" not in (scope.get("raw_path") or b"%"):
            begin = self._direct(request.method, request.path)
            if begin is not None:
                inbound = Inbound(request.method, request.path, request.query, scope["headers"], request.as_caller())
                return self._carrier(begin, inbound, receive, send, partial(self._headers.dress, request))
        return self._routed(request, scope, receive, send)

    async def _routed(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        scope["arena.caller"] = request.as_caller()
        welcome = await self._visitors.welcome(request) if self._visitors else []
        await self.app(scope, receive, self._dressing(request, send, welcome))

    def _read(self, scope: Scope) -> Request:
        path = self._inner(scope["path"]) if self._root_path else scope["path"]
        request = Request.read(scope, path, f"{self._process}{next(self._numbers):08x}")
        request_id.set(request.id)
        self._find_address(request, scope)
        return request

    def _again(self, seen: Request, scope: Scope) -> Request:
        """Another request with a head that was found good; nothing is known of its caller yet."""
        new_id = seen.given_id or f"{self._process}{next(self._numbers):08x}"
        request_id.set(new_id)
        https, (address, peer, asked_host) = scope["scheme"] in SECURE, scope.get(PLACE, NOWHERE)
        request = Request(
            new_id, seen.path, seen.method, seen.query, https, seen.found, address, address, None, seen.allowed_origin
        )
        request.given_id, request.peer, request.forwarded_host = seen.given_id, peer, asked_host
        if not address:  # the next one with this head on this connection comes from there too
            self._find_address(request, scope)
            scope[PLACE] = request.address, request.peer, request.forwarded_host
        return request

    def _inner(self, path: str) -> str:
        """`path` without the prefix that a reverse proxy may have left on it."""
        root = self._root_path
        return (path[len(root) :] or "/") if f"{path}/".startswith(f"{root}/") else path

    def _count(self, request: Request) -> Callable[[], object] | None:
        """Count an answer that begins; what is returned is called at its end. Raises Refused (429, 503)."""
        if request.method != "POST" or not request.path.startswith(API_PREFIXES):
            return None
        key = request.key
        if key is not None and key.concurrent is not None and self._keys is not None:
            try:
                self._keys.begin(key)
            except TooManyRequests as error:
                raise refused_key(error) from None
            return partial(self._keys.end, key)
        # Whoever has the token could lift both limits, and must get in when guests have taken all: only guests are
        # counted. What the others run is bounded by the endpoints' queue and by how many connections there may be.
        if request.trusted or not self._rated:
            return None
        self._answers.begin(request.caller)
        return partial(self._answers.end, request.caller)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = self._read(scope)
        try:
            self._check_server(scope)
            self._check_head(request)
            self._check_caller(request)
        except Refused as refused:
            self._note(request, refused)
            await send({"type": "websocket.close", "code": 1008, "reason": refused.error.code})
            return
        await self.app(scope, receive, send)

    def _check_server(self, scope: Scope) -> None:
        """A server that is not ours may listen where our own would not have begun. Raises Refused (403)."""
        server = scope.get("server")
        if server is None or self._may_be_open or is_own(server[0]) or self._credentials.required:
            return
        text = "This arena has no token, so it serves its own machine only: set WEB_CHAT_TOKEN, or ARENA_ALLOW_OPEN=1"
        raise Refused(Forbidden(text))

    def _check_head(self, request: Request) -> None:
        """What the head alone decides: host, path, framing, encoding, web site. Raises Refused (400, 403, 415)."""
        hosts = request.found.get(b"host", ())
        if len(hosts) != 1:
            raise Refused(BadRequest("A request must have exactly one Host header"))
        if not self._hosts.allows(hosts[0]):
            raise Refused(Forbidden("This host name is not allowed; the operator can add it to ARENA_ALLOWED_HOSTS"))
        if request.path[:1] != "/" or request.path[:2] == "//":
            raise Refused(BadRequest("The request path is not valid"))
        request.check_framing()
        if b"content-encoding" in request.found and request.found[b"content-encoding"][-1].lower() != b"identity":
            raise Refused(UnsupportedMedia("A request body must not be compressed"))
        self._note_origin(request)
        if request.method not in SAFE_METHODS or request.path == "/signout":
            self._check_site(request)

    @staticmethod
    def _check_site(request: Request) -> None:
        """A page of another web site must not act for whoever looks at it. Raises Refused (403)."""
        found = request.found
        from_page = b"sec-fetch-site" in found or b"origin" in found
        if (
            from_page
            and request.allowed_origin is None
            and not same_origin(request.one(b"sec-fetch-site"), request.one(b"origin"), found[b"host"][0])
        ):
            raise Refused(Forbidden("Requests from other web sites are not allowed"))

    def _check_caller(self, request: Request) -> None:
        """Who calls, and how often. Raises Refused (401, 403, 429, 503)."""
        if self.draining:
            raise Refused(ShuttingDown("The server is stopping"), [(b"connection", b"close"), (b"retry-after", b"5")])
        if self._credentials.required:
            self._authorize(request)
        if self._visitors and b"cookie" in request.found:
            request.visitor = self._visitors.name(request.found[b"cookie"])
        if not self._rated or request.trusted or (request.key is not None and request.key.per_minute is not None):
            return
        if request.path != HEALTH and not request.path.startswith(ASSETS):
            (self._page_rate if request.path.startswith(PAGE) else self._rate).take(request.caller)

    def _find_address(self, request: Request, scope: Scope) -> None:
        """Behind a trusted proxy the scope is told the caller's own address and scheme."""
        client = scope.get("client")
        peer = address = client[0] if client else ""
        if self._proxies and within(address, self._proxies):
            address = client_address(address, request.found.get(b"x-forwarded-for", ()), self._proxies)
            scope["client"] = (address, 0)
            if request.one(b"x-forwarded-proto") == b"https":
                request.https = True
                scope["scheme"] = "wss" if scope["type"] == "websocket" else "https"
            request.forwarded_host = forwarded_host(request.one(b"x-forwarded-host"))
        request.address = request.caller = network_key(address) if ":" in address else address
        if request.address != peer:
            request.peer = peer

    def _authorize(self, request: Request) -> None:
        """Find the session, or check the token or key. Raises Refused (401, 403, 429)."""
        found = request.found
        session = self._credentials.session(found.get(b"cookie", ()))
        if session is not None:
            request.caller, request.trusted = session, True
        elif request.path not in PUBLIC_PATHS:
            candidate = presented(found.get(b"authorization", ()), found.get(b"x-api-key", ()))
            key = self._credentials.check(candidate, request.address)
            request.trusted = key is None or "admin" in key.scopes
            if key is not None and self._keys is not None:
                # one made anew under an old name is somebody else
                request.key, request.caller = key, f"key {key.name} {key.digest[:16]}"
                try:
                    self._keys.admit(key, self._needs(request.method, request.path))
                except ArenaError as error:
                    raise refused_key(error) from None

    def _note_origin(self, request: Request) -> None:
        """Note the configured origin that a request for the API comes from, if it does."""
        if b"origin" in request.found:
            origin = request.found[b"origin"][-1]
            if origin in self._origins and request.path.startswith(API_PREFIXES):
                request.allowed_origin = origin

    @staticmethod
    def _is_preflight(request: Request) -> bool:
        """Does a page of a configured origin ask whether it may call the API?"""
        asks = request.method == "OPTIONS" and b"access-control-request-method" in request.found
        return asks and request.allowed_origin is not None

    def _bounded(self, request: Request, receive: Receive, send: Send) -> BoundedBody | None:
        """Refuse a body that is declared too large; have one counted whose length is not declared."""
        length = request.one(b"content-length")
        if length is None and b"transfer-encoding" not in request.found:
            return None
        limit = self._body_limit(request)
        if length is not None and int(length) <= limit:
            return None  # the server itself holds a body to its declared length
        too_large = self._too_large(request)
        if length is not None:
            raise too_large
        return BoundedBody(receive, send, limit, lambda: self._refuse(request, too_large, send))

    def _body_limit(self, request: Request) -> int:
        if request.method == "POST" and request.path.startswith(BLOBS):
            return BLOB_BYTES
        return next(size for prefix, size in self._body_limits if request.path.startswith(prefix))

    def _too_large(self, request: Request) -> Refused:
        return Refused(PayloadTooLarge(f"The request body is larger than {self._body_limit(request)} bytes"))

    def _dressing(self, request: Request, send: Send, more: Headers) -> Send:
        """`send` with our headers, and `more`, on the first message."""

        def dressed(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message["headers"] = self._headers.dress(request, message.get("headers", [])) + more
            return send(message)

        return dressed

    async def _answer_preflight(self, request: Request, send: Send) -> None:
        headers = [*self._headers.own(request), *preflight(request.one(b"access-control-request-headers"))]
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def _refuse(self, request: Request, refused: Refused, send: Send) -> None:
        anonymous = isinstance(refused.error, Unauthorized) and b"authorization" not in request.found
        if anonymous and request.wants_page:
            await self._pages.ask(request, send)
            return
        self._note(request, refused)
        headers, text = self._refusal(request, refused)
        await answer(send, refused.error.status, headers, text)

    def _refusal(self, request: Request, refused: Refused) -> tuple[Headers, bytes]:
        return self._worded(request, refused.error, refused.headers)

    def _worded(self, request: Request, error: ArenaError, more: Headers) -> tuple[Headers, bytes]:
        headers, text = self._told(request.path, request.id, error) or ([], error_body(error))
        kind = (b"content-type", b"application/json")
        return [kind, *headers, *more, *self._headers.own(request)], text

    def _note(self, request: Request, refused: Refused) -> None:
        address, code = request.address or "-", refused.error.code
        self._refusals.counts[code] += 1
        if refused.error.status in (401, 403, 429):
            log.warning("refused %s %s from %s: %s", request.method, request.path[:200], address, code)


def _body_limits(settings: Settings) -> tuple[tuple[str, int], ...]:
    """The largest body, in bytes, by how its path begins; the first that fits holds."""
    return (
        ("/olla/", settings.max_proxy_body_bytes),
        ("/v1/", settings.max_proxy_body_bytes),
        (UPLOAD, settings.max_upload_bytes + FORM_OVERHEAD_BYTES),
        ("/api/votes/import", settings.max_upload_bytes),
        ("", settings.max_body_bytes),
    )
