"""The push client: HTTP/1.1 answers handed over as bytes, the moment they arrive. Knows HTTP, not Ollama.

`Pool` owns the connections to one endpoint. `Pool.call()` returns a `Call`, the caller's hold on one answer; the
connection underneath is never handed out, because it may serve somebody else by the time the caller lets go.
`Pool.stream()` is the same for a reader that pulls; the pace is then the reader's.
`Pool.forward()` hands somebody else's request on and its answer back, told by plain calls.
"""

from arena.wire.answer import Headers, RawHeaders
from arena.wire.call import Call, Timeouts
from arena.wire.pool import EXHAUSTED, Fetched, Pool
from arena.wire.raw import RawCall, Receiver
from arena.wire.resolve import Resolver
from arena.wire.stream import Stream

__all__ = [
    "EXHAUSTED",
    "Call",
    "Fetched",
    "Headers",
    "Pool",
    "RawCall",
    "RawHeaders",
    "Receiver",
    "Resolver",
    "Stream",
    "Timeouts",
]
