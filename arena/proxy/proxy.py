"""The proxy: takes a request that was let in, and has it answered by an endpoint or by one of our own routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import Final

from arena.errors import ArenaError, ShuttingDown
from arena.exchange import Begin, Headers, Inbound, Session, Sink
from arena.fleet import Fleet, Wanted
from arena.keys import check_model
from arena.proxy.answering import Answering, tell
from arena.proxy.dialect import dialect_of
from arena.proxy.forward import Forward
from arena.proxy.headers import RequestHead
from arena.proxy.reply import Reply
from arena.proxy.routing import asked_in
from arena.proxy.table import NotThisMethod, Route, Rows, Table, check_path
from arena.settings import Settings

STOPPING: Final = "The server is stopping"


class Proxy:
    """`begin` starts to answer a request and returns at once; what comes goes to the sink.

    `more` are routes beside the proxy's own, `settled` is waited for while there are no endpoints yet.
    """

    def __init__(
        self, fleet: Fleet, settings: Settings, *, settled: Callable[[], Awaitable[None]], more: Rows | None = None
    ) -> None:
        self.fleet = fleet
        self.settings = settings
        self.table = Table(more)
        self._settled = settled
        self._running: set[Forward | Answering] = set()
        self.ended: Callable[[Forward | Answering], None] = self._running.discard
        """A request is over."""

    @property
    def running(self) -> int:
        """Requests being answered now."""
        return len(self._running)

    async def settled(self) -> None:
        """Wait, at the very start, until it is known who answers."""
        await self._settled()

    def direct(self, method: str, path: str) -> Begin | None:
        """What answers a request straight on its connection; None where its body is not to be read as a whole."""
        route = self.table.get(method, path)
        return None if route is None or route.upload is not None else self._way(route)

    def begin(self, inbound: Inbound, body: bytes, sink: Sink) -> Session | None:
        """Answer a request whose body is there."""
        try:
            route = self.table.find(inbound.method, inbound.path)
        except ArenaError as error:
            self._refuse(inbound, error, sink)
            return None
        return self._way(route)(inbound, body, sink)

    def _way(self, route: Route) -> Begin:
        """What answers requests to `route` that have the same head: what that tells is found out once for them all."""
        request_head: RequestHead | None = None

        def begin(inbound: Inbound, body: bytes, sink: Sink) -> Session | None:
            nonlocal request_head
            try:
                if request_head is None:
                    if inbound.query:
                        check_path(inbound.path, inbound.query)
                    request_head = RequestHead(inbound.headers)
                if route.known is not None or route.action is not None:
                    return self._act(inbound, route, body, sink)
                asked = asked_in(inbound, body, request_head.session, sticks=self.fleet.sticks)
                if inbound.caller.models is not None:
                    check_model(inbound.caller.models, asked.model)
            except ArenaError as error:
                self._refuse(inbound, error, sink, body)
                return None
            caller, model, talk = inbound.caller, asked.model, asked.conversation
            wanted = Wanted(
                model, request_head.endpoint, caller.counted_as, talk, route.kinds, caller.key, inbound.path
            )
            forward = Forward(self, inbound, request_head, asked, wanted, route, sink, monotonic())
            self._running.add(forward)
            return forward.begin()

        return begin

    def replying(self, route: Route, work: Awaitable[Reply]) -> Begin:
        """What answers with the reply of `work`, for a route that reads its request's body itself."""

        def begin(inbound: Inbound, body: bytes, sink: Sink) -> Session:
            return self._answering(inbound, route, sink).begin(lambda: work)

        return begin

    def drain(self) -> None:
        """The server stops: every running answer ends now, in words where there is room for them."""
        for session in tuple(self._running):
            session.stop(ShuttingDown(STOPPING))

    def _act(self, inbound: Inbound, route: Route, body: bytes, sink: Sink) -> Session | None:
        since_s = monotonic()
        if route.known is not None and (reply := route.known(self, inbound)) is not None:
            tell(reply, inbound, route.dialect, sink, since_s)
            return None
        assert route.action is not None, "what is not always known takes an action"
        answering, work = self._answering(inbound, route, sink, body), partial(route.action, self, inbound, body)
        return answering.begin(work if self.fleet.endpoints else partial(self._later, work))

    async def _later(self, work: Callable[[], Awaitable[Reply]]) -> Reply:
        await self._settled()
        return await work()

    def _answering(self, inbound: Inbound, route: Route, sink: Sink, body: bytes = b"") -> Answering:
        answering = Answering(inbound, route.dialect, sink, self.ended, body)
        self._running.add(answering)
        return answering

    def _refuse(self, inbound: Inbound, error: ArenaError, sink: Sink, body: bytes = b"") -> None:
        """Without a route, or with a request that no route could answer."""
        headers: Headers = []
        if isinstance(error, NotThisMethod):
            headers.append((b"allow", ", ".join(error.allow).encode("ascii")))
        Answering(inbound, dialect_of(inbound.path), sink, self.ended, body).refuse(error, headers)
