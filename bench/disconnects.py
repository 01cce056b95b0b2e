"""Clients that leave at each of nine stages, half with FIN, half with RST: is all behind them freed, and when?"""

from __future__ import annotations

import http.client
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from candidates import Target, fan_body
from sockets import CLOSE_WAIT, ESTABLISHED, SYN_SENT, sockets

EACH = 56  # times nine stages: 504 disconnects
MODELS = 2
STILL = 8
"""Looks at the upstream's counter, 20 ms apart, that must agree before the chain counts as standing still."""
NEVER_S = 2.0
ENOUGH = 5
"""Clients of a stage that were never freed, after which the rest of the stage is left out."""
DISTURBED = 5
"""Attempts of a stage that may be made again because a question of the server's own stood in the upstream's queue."""
Row = dict[str, Any]


class Disturbed(Exception):
    """What was left towards the upstream had nothing to do with the client."""


class Control:
    """The fake server's control routes over one connection, which works while it accepts no other."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def __call__(self, path: str, body: dict[str, Any] | None = None) -> Any:
        reads = path in ("/_stats", "/_aborts")
        self._http.request("GET" if reads else "POST", path, None if reads else json.dumps(body or {}))
        return json.loads(self._http.getresponse().read())

    @property
    def own_port(self) -> int:
        """This side's port of the control connection."""
        assert self._http.sock is not None
        return int(self._http.sock.getsockname()[1])

    def close(self) -> None:
        """Hang up."""
        self._http.close()


@dataclass
class Attempt:
    """One client about to leave. `seen` is what it has read of the answer."""

    target: Target
    control: Control
    tag: int
    client: socket.socket
    seen: bytes = b""
    fillers: list[socket.socket] = field(default_factory=list)

    def request(self, word: str) -> bytes:
        """The whole request, tagged so that the upstream's log can be told apart."""
        body = fan_body(MODELS, f"{word}-g{self.tag}").encode()
        header = f"{self.target.candidate.header}\r\n" if self.target.candidate.header else ""
        head = f"POST {self.target.candidate.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.target.port}\r\n{header}"
        return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    def ask(self, word: str) -> None:
        """Send the whole request."""
        self.client.sendall(self.request(word))

    def read_until(self, piece: bytes, times: int) -> None:
        """Read the answer until `piece` has come so often."""
        while self.seen.count(piece) < times:
            more = self.client.recv(65536)
            if not more:
                raise OSError(f"the answer ended early: {self.seen[-200:]!r}")
            self.seen += more

    def upstream_sockets(self, *states: int) -> int:
        """Sockets towards the upstream in one of `states`, but for our own."""
        own = {self.control.own_port, *(each.getsockname()[1] for each in self.fillers)}
        return sum(local not in own for local, _ in sockets(states, remote=self.target.up_port))


def until(reached: Callable[[], bool], seconds: float = 5) -> bool:
    """Poll until `reached`; False if it is not within `seconds`."""
    end = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > end:
            return False
        time.sleep(0.0005)
    return True


# ---- getting a client to its stage -----------------------------------------------------------------------------------


def in_head(at: Attempt) -> None:
    """Half of the request's head has been sent."""
    at.client.sendall(at.request("bench-n5")[:60])
    time.sleep(0.005)


def in_body(at: Attempt) -> None:
    """The head and half of the body have been sent."""
    whole = at.request("bench-n5")
    at.client.sendall(whole[: whole.index(b"\r\n\r\n") + 30])
    time.sleep(0.005)


def connecting(at: Attempt) -> None:
    """The upstream's queue of connections is full: the arena's SYN stays unanswered."""
    _fresh(at)
    at.control("/_hold", {"backlog": 0})
    at.fillers = [socket.create_connection(("127.0.0.1", at.target.up_port), timeout=5)]
    at.ask("bench-d20000-n400")
    _expect(until(lambda: at.upstream_sockets(SYN_SENT) > 0), "no connection was tried")


def queued(at: Attempt) -> None:
    """The upstream has the connections in its queue, but takes none."""
    _fresh(at)
    at.control("/_hold")
    at.ask("bench-d20000-n400")
    _expect(until(lambda: at.upstream_sockets(ESTABLISHED) >= MODELS), "no connections were opened")


def waiting(at: Attempt) -> None:
    """The upstream works, but has not said a thing."""
    at.ask("bench-t60000000-d20000-n400")
    _expect(until(lambda: at.control("/_stats")["active"] >= MODELS), "the upstream was not asked")


def streaming(at: Attempt) -> None:
    """Tokens are coming."""
    at.ask("bench-d5000-n4000")
    at.read_until(b"#2@", MODELS)


def mid_line(at: Attempt) -> None:
    """The upstream went silent in the middle of a line."""
    at.ask("bench-d1000-n400-h3")
    at.read_until(b"#2@", MODELS)
    time.sleep(0.005)


def paused(at: Attempt) -> None:
    """The client reads nothing of a firehose, so that the whole chain stands still."""
    at.ask("bench-n400000-b64")
    seen = [0]
    while len(set(seen[-STILL:])) > 1 or not seen[-1] or len(seen) < STILL:
        seen.append(at.control("/_stats")["tokens"])
        time.sleep(0.02)
    _expect(at.control("/_stats")["active"] == MODELS, "an answer ended before the client left")


def after_last_token(at: Attempt) -> None:
    """All tokens are there, the line that says so is not."""
    at.ask("bench-d1000-n5-w60000000")
    at.read_until(b"#4@", MODELS)


def _fresh(at: Attempt) -> None:
    """One ordinary request first, so that nothing but the chat itself has to be asked of the upstream."""
    at.target.load("bench-n2", MODELS, 1, 1, 2, t=5)


def _expect(reached: bool, otherwise: str) -> None:
    if not reached:
        raise OSError(otherwise)


# ---- seeing it freed -------------------------------------------------------------------------------------------------


def server_side_gone(at: Attempt, left_ns: int, port: int) -> float | None:
    """The server has closed its end of the client's connection."""
    gone = until(lambda: not sockets((ESTABLISHED, CLOSE_WAIT), at.target.port, port), NEVER_S)
    return (time.monotonic_ns() - left_ns) / 1e6 if gone else None


def nothing_towards_upstream(at: Attempt, left_ns: int, port: int) -> float | None:
    """No socket towards the upstream is left, open or opening. Raises Disturbed if what is left asks for no answer."""
    if until(lambda: not at.upstream_sockets(ESTABLISHED, SYN_SENT), NEVER_S):
        return (time.monotonic_ns() - left_ns) / 1e6
    at.control("/_release")
    if until(lambda: at.control("/_stats")["active"] > 0, 1):
        return None
    raise Disturbed


def upstream_logged(at: Attempt, left_ns: int, port: int) -> float | None:
    """The upstream saw all of its connections close; its own clock, which is ours, says when."""
    mine: list[int] = []

    def all_closed() -> bool:
        mine[:] = [each["at_ns"] for each in at.control("/_aborts") if each["tag"] == at.tag]
        return len(mine) == MODELS

    return (max(mine) - left_ns) / 1e6 if until(all_closed, NEVER_S) else None


Reach = Callable[[Attempt], None]
Seen = Callable[[Attempt, int, int], float | None]
STAGES: dict[str, tuple[Reach, Seen]] = {
    "in the head": (in_head, server_side_gone),
    "in the body": (in_body, server_side_gone),
    "connecting": (connecting, nothing_towards_upstream),
    "queued": (queued, nothing_towards_upstream),
    "waiting": (waiting, upstream_logged),
    "streaming": (streaming, upstream_logged),
    "mid-line": (mid_line, upstream_logged),
    "paused": (paused, upstream_logged),
    "after the last token": (after_last_token, upstream_logged),
}


def leave(target: Target, control: Control, stage: str, tag: int, reset: bool) -> float | None:
    """One disconnect: milliseconds until freed, or None for never."""
    reach, seen = STAGES[stage]
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    client.settimeout(5)
    client.connect(("127.0.0.1", target.port))
    at = Attempt(target, control, tag, client)
    try:
        reach(at)
        port = client.getsockname()[1]
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        left_ns = time.monotonic_ns()
        client.close()
        return seen(at, left_ns, port)
    finally:
        client.close()
        control("/_release")
        for each in at.fillers:
            each.close()


def run(target: Target, each: int = EACH) -> Iterator[Row]:
    """All stages; the last row sums them up."""
    every: list[float | None] = []
    with closing(Control(target.up_port)) as control:
        target.warm(MODELS)
        for stage in STAGES:
            control("/_reset")
            took: list[float | None] = []
            disturbed = 0
            while len(took) < each and took.count(None) < ENOUGH:
                tag = len(took) + disturbed + 1
                try:
                    took.append(leave(target, control, stage, tag, reset=len(took) % 2 == 1))
                except Disturbed:
                    disturbed += 1
                    if disturbed > DISTURBED:
                        took.append(None)
            chats = control("/_stats")["chats"] if stage.startswith("in the") else 0
            every += took
            yield summary(stage, took, f"the upstream was asked {chats} times" if chats else None)
    yield summary("all stages", every, None)


def summary(name: str, took: list[float | None], trouble: str | None) -> Row:
    """One row: how many were freed, and how soon."""
    freed = sorted(ms for ms in took if ms is not None)
    return {
        "load": name,
        "void": trouble,
        "freed": len(freed),
        "of": len(took),
        "p50_ms": freed[len(freed) // 2] if freed else None,
        "p99_ms": freed[int((len(freed) - 1) * 0.99)] if freed else None,
        "worst_ms": freed[-1] if freed else None,
    }
