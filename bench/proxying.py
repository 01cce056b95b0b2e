"""The proxy's cases: small requests, streams, an upstream that dies and comes back, and callers that compete."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import lab
from candidates import LONG_PROMPT, Target, chat_body, judge
from cases import Row, per_token

ANSWER = "The quick brown fox jumps over the lazy dog."
"""What the upstream says when it is not to stream."""
VERSION = '"version":"0.13.5"'


def small(target: Target) -> Iterator[Row]:
    """Requests of about 300 bytes and answers of as many, one after the other on 1 and on 32 connections."""
    one = target.candidate
    target.warm(1)
    for method in ("GET", "POST"):
        if method == "GET" and one.chat:
            continue  # it has no route like that
        route = (
            ["-p", f"{one.prefix}/api/version", "-k", VERSION] if method == "GET" else ["-p", one.path, "-k", ANSWER]
        )
        body = chat_body("", stream=False, prompt=LONG_PROMPT)
        for at_once, requests in ((1, 3000), (32, 12000)):
            many = max(at_once, int(requests * one.scale))
            got = target.measured(["-m", method, *route, "-b", body, "-c", at_once, "-n", many, "-t", 30])
            took, cpu = got["total_us"] or {}, got["server_cpu_s"]
            yield {
                "load": f"{method} c={at_once}",
                **judge(got, many),
                "us_per_request": None if cpu is None or not got["finished"] else cpu / got["finished"] * 1e6,
                "requests_per_s": got["finished"] / got["wall_s"],
                "p50_us": took.get("p50"),
                "p99_us": took.get("p99"),
            }


def stream(target: Target) -> Iterator[Row]:
    """16 streams as fast as they go, 64 tokens a write; and 64 streams at 30 tokens/s."""
    scale = target.candidate.scale
    flood, slow_ones = max(20, int(6000 * scale)), 4 * 30
    for load, word, at_once, requests, tokens, ramp_ms in (
        ("16 flood", f"bench-n{flood}-b64", 16, 64, flood, 0),
        ("64x30", f"bench-d33333-n{slow_ones}", 64, 64, slow_ones, 200),
    ):
        target.warm(1)
        got = target.load(word, 1, at_once, requests, tokens, t=30, r=ramp_ms)
        late, verdict = got["lat_us"] or {}, judge(got, requests)
        yield {
            "load": load,
            **verdict,
            "us_per_token": per_token(got),
            "tokens_per_s": got["tokens"] / got["wall_s"],
            "p50_us": late.get("p50"),
            "p99_us": late.get("p99"),
        }
        if any(verdict.values()):
            target.restart()


# ---- recovery --------------------------------------------------------------------------------------------------------

CALLERS = 6
FIRST_TOKEN_MS = 20
"""So long a request stands at its upstream: some are there when it dies, and none has begun to be answered."""
SETTLED_S = 2.0
DEADLINE_S = 15.0


@dataclass
class Callers:
    """Clients that ask one request after the other until `stop`; what became of each is kept."""

    target: Target
    done: list[float] = field(default_factory=list)
    """When the good answers ended."""
    failed: list[tuple[float, str]] = field(default_factory=list)
    """When a request failed, and why."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Begin to ask."""
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let every caller end its last request."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.target.port, timeout=DEADLINE_S)
        count = 0
        while not self._stop.is_set():
            count += 1
            body = chat_body(f"bench-t{1000 * FIRST_TOKEN_MS}-n3", prompt=f"{number}.{count}")
            try:
                connection.request("POST", self.target.candidate.path, body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                wrong = flaw(answer.status, answer.read())
            except (OSError, http.client.HTTPException) as error:
                wrong = f"{type(error).__name__}: {error}"
                connection.close()
            if wrong:
                self.failed.append((time.monotonic(), wrong))
            else:
                self.done.append(time.monotonic())
        connection.close()


def flaw(status: int, answer: bytes) -> str:
    """What is wrong with a streamed answer of three tokens; "" for nothing."""
    if status != 200:
        return f"status {status}: {answer[:100].decode('utf-8', 'replace')}"
    last = answer.rstrip().rpartition(b"\n")[2]
    whole = answer.count(b"\n") == 4 and last.startswith(b"{") and json.loads(last).get("done") is True
    return "" if whole else f"it ended with {last[-100:].decode('utf-8', 'replace')}"


def asked_of(port: int) -> int:
    """Chats that an upstream has had."""
    return int(lab.call(port, "/_stats")["chats"])


def recover(target: Target) -> Iterator[Row]:
    """One of two upstreams is killed under load and started again: what fails, and when does it serve again?"""
    target.warm(1)
    port, callers = target.up_ports[1], Callers(target)
    callers.start()
    try:
        if not _until(lambda: asked_of(port) > CALLERS):
            raise lab.LabError("the second upstream is never asked")
        target.upstreams[1].kill()
        killed = time.monotonic()
        time.sleep(SETTLED_S)
        target.upstreams[1] = lab.upstream(port)
        back = time.monotonic()
        served = _until(lambda: asked_of(port) > 0)
        back_s = time.monotonic() - back
        time.sleep(SETTLED_S / 2)
    finally:
        callers.stop()
    ends = [at for at, _ in callers.failed]
    yield {
        "load": "one of two",
        "void": None if served else f"it was not asked again within {DEADLINE_S:g} s",
        "requests": len(callers.done) + len(callers.failed),
        "failed": len(callers.failed),
        "failing_s": max(0.0, max(ends) - killed) if ends else 0.0,
        "back_s": back_s,
        "first_failure": callers.failed[0][1] if callers.failed else None,
    }


def _until(reached: Callable[[], bool]) -> bool:
    end = time.monotonic() + DEADLINE_S
    while not reached():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


# ---- fairness --------------------------------------------------------------------------------------------------------

PLACES = 2
FLOOD, POLITE = "127.0.0.2", "127.0.0.3"
ANSWER_MS = 50
FAIR_S = 4


def fair(target: Target) -> Iterator[Row]:
    """A caller keeps 16 requests before a host with two places, another has one at a time: how long does it wait?"""
    target.warm(1)
    word = f"bench-t{1000 * ANSWER_MS}-n1"
    flood = lab.start_load(target.port, *target.args(word, 1, 16, 100_000, 1, t=FAIR_S + 1, a=FLOOD))
    time.sleep(0.5)
    polite = target.measured(target.args(word, 1, 1, 100_000, 1, t=FAIR_S, a=POLITE))
    rival = lab.finish_load(flood)
    waited, theirs = ((each["total_us"] or {}).get("p50") for each in (polite, rival))
    yield {
        "load": "16 against 1",
        "void": judge(polite, 0)["void"] or judge(rival, 0)["void"] or (None if waited else "it was never served"),
        "waited_ms": _beyond(waited),
        "worst_ms": _beyond((polite["total_us"] or {}).get("max")),
        "waited_answers": _beyond(waited, ANSWER_MS),
        "served_per_s": polite["finished"] / FAIR_S,
        "flood_waited_ms": _beyond(theirs),
        "flood_per_s": rival["finished"] / (FAIR_S + 1),
    }


def _beyond(took_us: float | None, unit_ms: float = 1) -> float | None:
    """How much longer than the answer itself takes."""
    return None if took_us is None else (took_us / 1000 - ANSWER_MS) / unit_ms
