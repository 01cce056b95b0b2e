"""Conversations stay on the endpoint that knows them, as long as that serves them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice

from arena.fleet.endpoint import Endpoint
from arena.fleet.lease import StickyWord
from arena.fleet.spec import StickySpec

ESCAPE_AT = 2
"""A pin is left when its endpoint has so many more requests running than the least busy candidate."""

Pin = tuple[str, str]


class Sticky:
    """The pins of conversations, those used last, each with the model it is about."""

    def __init__(self, spec: StickySpec) -> None:
        self.spec = spec
        self.hits = self.misses = self.repins = self.evictions = self.insertions = 0
        self._pins: OrderedDict[Pin, tuple[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pins)

    def find(self, pin: Pin, candidates: Sequence[Endpoint], now_s: float) -> tuple[Endpoint | None, StickyWord]:
        """The candidate that the conversation should stay on, or None to choose anew, with the word for it."""
        held = self._pins.get(pin)
        if held is None or now_s >= held[1]:
            self.misses += 1
            return None, "miss"
        for endpoint in candidates:
            if endpoint.name == held[0] and (endpoint.in_flight < ESCAPE_AT or not _much_busier(endpoint, candidates)):
                self.hits += 1
                return endpoint, "hit"
        self.repins += 1
        return None, "repin"

    def pin(self, pin: Pin, endpoint: Endpoint, now_s: float) -> None:
        """The conversation is there now, and its time begins anew."""
        pins = self._pins
        before = len(pins)
        pins[pin] = (endpoint.name, now_s + self.spec.idle_ttl_s)
        if len(pins) == before:
            pins.move_to_end(pin)
        else:
            self.insertions += 1
            self._drop_old(now_s)

    def forget(self, endpoint: str) -> None:
        """Nothing stays on `endpoint` any more."""
        for pin in [pin for pin, (name, _) in self._pins.items() if name == endpoint]:
            del self._pins[pin]

    def _drop_old(self, now_s: float) -> None:
        """The pin used longest ago comes first; at most two go in one turn, which is more than one comes in."""
        for oldest in tuple(islice(self._pins, 2)):
            over = len(self._pins) > self.spec.max_sessions
            if not over and self._pins[oldest][1] > now_s:
                return
            del self._pins[oldest]
            self.evictions += 1


def _much_busier(endpoint: Endpoint, candidates: Sequence[Endpoint]) -> bool:
    return endpoint.in_flight - min(candidate.in_flight for candidate in candidates) >= ESCAPE_AT
