"""What an OpenAI stream has cost: its server is asked to tell, and the client sees no more of it than it asked for."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw, Struct

from arena.exchange import Inbound
from arena.fleet import Lease
from arena.openai.body import REFUSING, refused_keys
from arena.openai.events import Events
from arena.proxy.adapt import Adapted, Asking, readable
from arena.proxy.counters import Tail
from arena.proxy.dialect import EVENTS
from arena.proxy.headers import header
from arena.proxy.held import Held

KEY: Final = "stream_options"
EVENT_BYTES: Final = 1024 * 1024
"""So much of an event is held back at most."""
_KEYS: Final = frozenset({KEY})
_ASKED: Final = b'{"include_usage":true}'


class _Options(Struct):
    include_usage: bool | None = None


class _Body(Struct):
    stream: bool | None = None
    stream_options: _Options | None = None


class _Event(Struct):
    """The chunk that only tells the usage."""

    choices: list[Raw]
    usage: dict[str, Raw]


_read: Final = msgspec.json.Decoder(_Body).decode
_members: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_event: Final = msgspec.json.Decoder(_Event).decode


def adapted(asking: Asking, tail: Tail, lease: Lease, inbound: Inbound, body: bytes) -> Adapted | None:
    """How a request for a stream goes out; None for anything else. Its target stays the same."""
    try:
        asked = _read(body)
        if not asked.stream:
            return None
        told = asked.stream_options is not None and asked.stream_options.include_usage is True
        wanted = not told and lease.endpoint.takes.get(KEY, True)
        sent = _asking_for_usage(body) if wanted else body
    except (ValueError, RecursionError):
        return None  # the endpoint says best what is wrong with it
    counted = Counted(asking, lease, tail, added=wanted)
    return Adapted(inbound.path[inbound.path.index("/v1/") :].encode("ascii"), readable(inbound), sent, counted)


def _asking_for_usage(body: bytes) -> bytes:
    members = _members(body)
    given = members.get(KEY)
    options = {} if given is None or bytes(given) == b"null" else _members(given)
    members[KEY] = Raw(msgspec.json.encode({**options, "include_usage": Raw(b"true")}))
    return msgspec.json.encode(members)


class Counted(Held):
    """Counts the events of a stream; with `added` its last chunk, with what it cost, is for the books only.

    A server that refuses the key that was `added` is asked again without it, and never told it any more.
    """

    def __init__(self, asking: Asking, lease: Lease, tail: Tail, *, added: bool) -> None:
        super().__init__(asking, lease)
        self._tail = tail
        self._added = added
        self._events: Events | None = None

    def keeps(self) -> bool:
        """May it be a refusal of what was added?"""
        if self.status >= 300:
            return self._added and self.status in REFUSING
        coding = header(self.headers, b"content-encoding") or b"identity"
        if coding == b"identity" and (header(self.headers, b"content-type") or b"").startswith(EVENTS):
            self._events = Events(self.lease.endpoint.name)
        return False

    def decided(self, body: bytes) -> bool:
        """Ask again without the key, if that is what was refused."""
        if not refused_keys({KEY: _ASKED}, _KEYS, body):
            return False
        self.lease.endpoint.takes[KEY] = False
        self.asking.again()
        return True

    def passes(self, data: bytes) -> None:
        """A piece of the stream; half an event waits for its end. What follows a huge one is not looked at any more."""
        if self._events is None:
            self.asking.on_data(data)
            return
        whole = self._events.feed(data)
        if self._events.waiting_bytes > EVENT_BYTES:
            whole += self._events.taken()
            self._events = None
        if not whole:
            return
        self._tail.events += whole.count(b"\n\n") or whole.count(b"\n\r\n")
        if self._added and b'"usage"' in whole and b"[]" in whole:
            whole = self._without_usage(whole)
        if whole:
            self.asking.on_data(whole)

    def on_end(self, error: BaseException | None) -> None:
        """The stream is over; what it ends with need not be a whole event."""
        if self._events is not None and error is None and (rest := self._events.taken()):
            self.asking.on_data(rest)
        super().on_end(error)

    def _without_usage(self, whole: bytes) -> bytes:
        kept = []
        for event in whole.replace(b"\r\n", b"\n").split(b"\n\n"):
            if _tells_usage(event):
                self._tail.aside = event
            else:
                kept.append(event)
        return b"\n\n".join(kept)


def _tells_usage(event: bytes) -> bool:
    if not event.startswith(b"data:"):
        return False
    try:
        return not _event(event[5:]).choices
    except (ValueError, RecursionError):
        return False
