"""The guard's own routes: sign in (trade the token for a session cookie), sign out, and no robots."""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import Awaitable, Callable
from hashlib import sha256
from html import escape
from importlib.resources import files
from posixpath import normpath
from string import Template
from typing import Final
from urllib.parse import parse_qs, quote, unquote, urlsplit

from arena.errors import BadRequest, MethodNotAllowed, PayloadTooLarge
from arena.exchange import Headers, Refusals
from arena.guard.asgi import Receive, Refused, Send, answer
from arena.guard.credentials import COOKIE, INVALID, SESSION_S, Credentials
from arena.guard.headers import SafetyHeaders
from arena.guard.request import Request

log = logging.getLogger(__name__)

FORM_BYTES: Final = 8 * 1024
FORM_FIELDS: Final = 8
WRONG: Final = "That is not the access token."
NO_ROBOTS: Final = b"User-agent: *\nDisallow: /\n"
TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
HTML: Final = (b"content-type", b"text/html; charset=utf-8")

Page = Callable[[Request, Receive, Send], Awaitable[None]]


class OwnPages:
    """The routes the guard answers itself. `root_path` is the prefix browsers see, without a slash at its end."""

    def __init__(
        self,
        credentials: Credentials,
        headers: SafetyHeaders,
        refusals: Refusals,
        *,
        root_path: str,
        framed: bool,
    ) -> None:
        self._credentials = credentials
        self._refusals = refusals
        self._headers = headers
        self._root_path = root_path
        self._framed = framed
        text = files("arena.guard").joinpath("signin.html").read_text("utf-8")
        style = text.partition("<style>")[2].partition("</style>")[0]
        self._style = "sha256-" + b64encode(sha256(style.encode()).digest()).decode()
        self._template = Template(text)
        self._routes: dict[tuple[str, str], Page] = {
            ("GET", "/signin"): self._show,
            ("HEAD", "/signin"): self._show,
            ("POST", "/signin"): self._sign_in,
            ("GET", "/signout"): self._sign_out,
            ("POST", "/signout"): self._sign_out,
            ("GET", "/robots.txt"): self._robots,
            ("HEAD", "/robots.txt"): self._robots,
        }
        self.paths = frozenset(path for _, path in self._routes)

    async def serve(self, request: Request, receive: Receive, send: Send) -> None:
        """Answer a request for one of `paths`. Raises Refused (405, 400, 413)."""
        page = self._routes.get((request.method, request.path))
        if page is None:
            allowed = ", ".join(method for method, path in self._routes if path == request.path)
            raise Refused(MethodNotAllowed("Method not allowed"), [(b"allow", allowed.encode())])
        await page(request, receive, send)

    async def ask(self, request: Request, send: Send) -> None:
        """Send a browser to the sign-in page, and from there back to what it asked for."""
        target = request.path + ("?" + request.query.decode("latin-1") if request.query else "")
        await self._redirect(request, send, "/signin?next=" + quote(local_target(target), safe="/"))

    async def _show(self, request: Request, _receive: Receive, send: Send) -> None:
        try:
            fields = parse_qs(request.query.decode("latin-1"), max_num_fields=FORM_FIELDS)
        except ValueError:
            fields = {}
        target = local_target(fields.get("next", ["/"])[0])
        if self._credentials.required:
            await self._render(request, send, 200, target, "", [])
        else:
            await self._redirect(request, send, target)

    async def _sign_in(self, request: Request, receive: Receive, send: Send) -> None:
        form = await read_form(receive)
        target = local_target(form.get("next", "/"))
        headers: Headers = []
        if self._credentials.required:
            try:
                session = self._credentials.sign_in(form.get("token", "").strip().encode(), request.address)
            except Refused as refused:
                log.warning("refused sign-in from %s: %s", request.address, refused.error.code)
                error = refused.error
                self._refusals.counts[error.code] += 1
                told = WRONG if error.message == INVALID else error.message
                await self._render(request, send, error.status, target, told, refused.headers)
                return
            headers = self._cookie(request, session)
        await self._redirect(request, send, target, headers)

    async def _sign_out(self, request: Request, _receive: Receive, send: Send) -> None:
        self._credentials.sign_out(request.found.get(b"cookie", ()))
        await self._redirect(request, send, "/signin", self._cookie(request, ""))

    async def _robots(self, request: Request, _receive: Receive, send: Send) -> None:
        await answer(send, 200, [TEXT, *self._headers.own(request)], NO_ROBOTS)

    def _cookie(self, request: Request, session: str) -> Headers:
        """Set the session cookie, or remove it when `session` is empty.

        In a frame of another site (a Space) only a partitioned SameSite=None cookie comes back; what other sites
        send is refused by its origin there as everywhere.
        """
        life_s = int(SESSION_S) if session else 0
        flags = "SameSite=None; Secure; Partitioned" if self._framed else "SameSite=Strict"
        if request.https and not self._framed:
            flags += "; Secure"
        return [(b"set-cookie", f"{COOKIE}={session}; Path=/; Max-Age={life_s}; HttpOnly; {flags}".encode())]

    async def _render(
        self, request: Request, send: Send, status: int, target: str, error: str, headers: Headers
    ) -> None:
        note = f'<p class="error" id="error" role="alert">{escape(error)}</p>' if error else ""
        page = self._template.substitute(error=note, action=escape(f"{self._root_path}/signin"), next=escape(target))
        await answer(send, status, [HTML, *self._headers.form(request, self._style), *headers], page.encode())

    async def _redirect(self, request: Request, send: Send, target: str, headers: Headers | None = None) -> None:
        location = (b"location", (self._root_path + target).encode("ascii"))
        await answer(send, 303, [TEXT, location, *self._headers.own(request), *(headers or [])], b"")


def local_target(target: str) -> str:
    """`target` if it is a path on this server and neither signs in nor out again, else "/".

    Browsers read `//host`, and `/\\host` too, as a host.
    """
    if not target.startswith("/") or target.startswith("//") or "\\" in target or not target.isprintable():
        return "/"
    if normpath(unquote(urlsplit(target).path)) in ("/signin", "/signout"):
        return "/"
    return quote(target, safe="/?&=#%+,:;@!$'()*~")


async def read_form(receive: Receive) -> dict[str, str]:
    """The fields of a posted form. Raises Refused: 413 over FORM_BYTES, 400 over FORM_FIELDS."""
    body = bytearray()
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > FORM_BYTES:
            raise Refused(PayloadTooLarge(f"The form is larger than {FORM_BYTES} bytes"))
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=FORM_FIELDS)
    except ValueError:
        raise Refused(BadRequest("The form has too many fields")) from None
    return {name: values[0] for name, values in fields.items()}
