"""Every fault of an endpoint on every route that is handed on, alone and beside a sound one: hundreds in one run.

What the arena's own doors make of each fault, word for word, is in `test_matrix.py` and `test_proxy.py`. Here it is the
nevers on all routes: no hang, no other status than the documented ones, no cut answer that looks whole, nothing asked
twice, nothing left over, no harm to a neighbour, no failure without a line in the log.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from msgspec import Struct

from arena.exchange import Caller
from arena.fleet import EndpointSpec, Fleet, FleetSpec
from arena.fleet.breaker import Breaker
from arena.fleet.endpoint import Endpoint
from arena.fleet.health import Health
from arena.names import canonical
from arena.types import ModelInfo
from arena.wire import Timeouts
from tests.fake_ollama import FakeOllama, text_of
from tests.fake_ollama.invariants import Level, leak, level, settled
from tests.faults.table import ENDPOINT, REFUSALS, STREAMS
from tests.proxy.front import HELLO, Front, Taken

pytestmark = pytest.mark.anyio

TOGETHER = 16
DEADLINE_S = 20.0
SETTLE_S = 10.0
GOOD = "fx-ok:n-5"
NOT_HIDDEN = {"F07", "F07.big", "F11", "F11.forbidden"}
"""Refusals that are the client's to hear, whoever else could answer."""
TOO_MUCH = {"F20", "F20.gzip", "F24", "F28"}
"""Faults of volume, and of a second request: `test_proxy.py` has them."""
PASSED = {"F17", "F17.type", "F17.deep", "F18.invalid", "F23", "F23.twice"}
"""What a proxy that does not look into answers hands on as it is."""
QUIET = {"F10", "F10.path", "F11", "F11.forbidden"}
"""Failures that are the request's rather than the host's."""
STATUSES = {200, 401, 403, 404, 429, 500, 502, 503, 504}
LATE, SHORT, TOTAL = 10.0, 0.4, 3.0
SILENT = {"F02", "F04", "F04.half", "F04.slow", "F14"}
LONG = {"F04"}
"""The silence of a host that still writes its answer: who asks for all of it at once hears nothing before the end."""
MESSAGES = "/v1/messages"


class Route(Struct, frozen=True):
    """A route to hand on, and how it is asked."""

    path: str
    stream: bool

    @property
    def body(self) -> dict[str, Any]:
        """What is asked, but for the model."""
        asked: dict[str, Any] = {"messages": HELLO, "prompt": "Hello!", "input": "Hello!", "stream": self.stream}
        return {**asked, "max_tokens": 99} if self.path.endswith(MESSAGES) else asked


ROUTES = (
    *(
        Route(path, stream)
        for path in (
            "/olla/ollama/api/chat",
            "/olla/ollama/api/generate",
            "/olla/openai/v1/chat/completions",
            "/olla/proxy/v1/completions",
            f"/olla/anthropic{MESSAGES}",
        )
        for stream in (True, False)
    ),
    Route("/olla/ollama/api/embed", False),
    Route("/olla/proxy/v1/embeddings", False),
)
FAULTS = {name: fault for name, fault in (ENDPOINT | REFUSALS | STREAMS).items() if name not in TOO_MUCH}


class Case(Struct, frozen=True):
    """One fault on one route: of the only host, or of one beside which a sound host could answer (`helped`)."""

    number: int
    route: Route
    name: str
    helped: bool

    @property
    def id(self) -> str:
        """What it is called where it went wrong."""
        return f"{self.name} {self.route.path}{'' if self.route.stream else ' whole'}{' helped' if self.helped else ''}"

    @property
    def request_id(self) -> str:
        """Under which the hosts and the log know it."""
        return f"case-{self.number}"


def cases() -> Iterator[list[Case]]:
    """All of them, route by route."""
    number = 0
    for route in ROUTES:
        embeds = "embed" in route.path
        group = []
        for name in FAULTS:
            for helped in (False, True):
                if name in STREAMS and (embeds or helped):
                    continue  # what has begun cannot be helped any more
                number += 1
                group.append(Case(number, route, name, helped))
        yield group


def model_of(name: str) -> str:
    """The model that only the host of this fault has."""
    return f"gone-{name.lower()}:1b" if name in ENDPOINT else FAULTS[name].model


def spec_of(name: str, url: str) -> EndpointSpec:
    """A host of its own for each fault, so that what one has done is held against nobody else."""
    fault = FAULTS[name]
    first_s = SHORT if name in SILENT else LATE
    connect_s, idle_s = SHORT if fault.accept == "blackhole" else LATE, SHORT if name == "F14" else LATE
    limits = Timeouts(connect_s, first_s, idle_s, TOTAL if name in SILENT else None)
    return EndpointSpec(name=name, url=url, include=(model_of(name),), timeouts=limits, check_interval_s=0)


@asynccontextmanager
async def hosts() -> AsyncGenerator[Front, None]:
    """The proxy before them all; the sound one is called good."""
    async with AsyncExitStack() as stack:
        listed = [model_of(name) for name in FAULTS]
        bad = await stack.enter_async_context(FakeOllama(models=listed))
        fakes = {"bad": bad, "good": await stack.enter_async_context(FakeOllama(models=[GOOD]))}
        for name, fault in FAULTS.items():
            if fault.accept != "normal":
                fakes[name] = await stack.enter_async_context(FakeOllama(models=[model_of(name)]))
        specs = [spec_of(name, fakes.get(name, bad).url) for name in FAULTS]
        limits = Timeouts(LATE, LATE, LATE)
        good = EndpointSpec(name="good", url=fakes["good"].url, timeouts=limits, check_interval_s=0)
        aliases: dict[str, tuple[str, ...]] = {f"helped-{name.lower()}": (model_of(name), GOOD) for name in FAULTS}
        fleet = Fleet(spec=FleetSpec(endpoints=(*specs, good), aliases=aliases))
        stack.push_async_callback(fleet.aclose)
        for endpoint in fleet.endpoints:
            renew(endpoint)
        for name, fault in FAULTS.items():
            if fault.accept != "normal":
                fakes[name].state(accept=fault.accept)
        yield Front(fleet, fakes)


def renew(endpoint: Endpoint) -> None:
    """Forget what it has done so far."""
    model = GOOD if endpoint.name == "good" else model_of(endpoint.name)
    endpoint.breaker, endpoint.health, endpoint.rests_until_s = Breaker(time.monotonic), Health(time.monotonic), 0.0
    endpoint.resting = {}
    endpoint.holds, endpoint.heard = {canonical(model): ModelInfo(name=model)}, True


class Run:
    """All cases on one ground; `wrong` is what must never happen."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self.wrong: list[str] = []
        self.done = 0

    async def group(self, group: list[Case]) -> None:
        """The cases of one route, TOGETHER at a time."""
        for endpoint in self.front.fleet.endpoints:
            renew(endpoint)
        left = list(reversed(group))

        async def worker() -> None:
            while left:
                await self._one(left.pop())

        async with asyncio.TaskGroup() as tasks:
            for _ in range(TOGETHER):
                tasks.create_task(worker())
        await self.neighbour(group[0].route)

    async def _one(self, case: Case) -> None:
        self.done += 1
        caller = Caller("127.0.0.1", "127.0.0.1", case.request_id)
        model = f"helped-{case.name.lower()}" if case.helped else model_of(case.name)
        headers = [] if case.helped else [("X-Olla-Endpoint", case.name)]
        body = {"model": model, **case.route.body}
        taken = self.front.begin("POST", case.route.path, body, headers=headers, caller=caller)
        try:
            async with asyncio.timeout(DEADLINE_S):
                await taken.over.wait()
        except TimeoutError:
            self.wrong.append(f"{case.id}: hung")
        else:
            self.wrong += [f"{case.id}: {what}" for what in never(case, taken)]

    async def neighbour(self, route: Route) -> None:
        """A sound host beside the others is none the worse for it."""
        body = {"model": GOOD, **route.body}
        answer = await self.front.ask("POST", route.path, body)
        text = b"".join(answer.parts).decode()
        if answer.status != 200 or not answer.ended or ("embed" not in route.path and text_of(1) not in text):
            self.wrong.append(f"a neighbour on {route.path} was harmed: {answer.status}")

    def repeated(self, asked: dict[str, Case]) -> Iterator[str]:
        """What was asked of a host twice, or of another after an answer had begun."""
        sent: Counter[tuple[str, str, str]] = Counter()
        for host, fake in self.front.fakes.items():
            for record in fake.log:
                if (request_id := record.headers.get("x-olla-request-id")) in asked:
                    sent[request_id, host, record.path] += 1
        for (request_id, host, path), times in sent.items():
            case = asked[request_id]
            if times > 1 + FAULTS[case.name].resent:
                yield f"{case.id}: asked {host} for {path} {times} times"
            if host == "good" and not case.helped:
                yield f"{case.id}: asked another host than the named one"


def never(case: Case, taken: Taken) -> Iterator[str]:
    """What is wrong with an answer, whatever the fault was."""
    hidden = case.helped and case.name not in NOT_HIDDEN and not _may_take_long(case)
    if taken.status not in STATUSES:
        yield f"status {taken.status}"
    if case.helped and _may_take_long(case) and taken.status != 504:
        yield f"begun anew: {taken.status}"
    if hidden and (taken.status, taken.headers["x-olla-endpoint"]) != (200, "good"):
        yield f"not hidden: {taken.status}"
    if taken.status == 200:
        yield from _told(case, taken, sound=hidden or not FAULTS[case.name].code)
    elif taken.cut or not refuses(taken):
        yield f"a refusal without an error: {taken.body[:80]!r}"


def _may_take_long(case: Case) -> bool:
    """A whole answer may be long in coming: nobody begins it anew elsewhere, and it ends with the total limit."""
    return case.name in LONG and not case.route.stream


def _told(case: Case, taken: Taken, *, sound: bool) -> Iterator[str]:
    """What is wrong with what came of an answer that should be `sound`, or should not seem so."""
    whole = taken.ended and looks_whole(case, taken)
    if sound and not whole and case.name not in PASSED:
        yield f"not whole: {taken.body[-80:]!r}"
    if whole and not sound and case.name not in PASSED:
        yield f"looks whole: {taken.body[-80:]!r}"
    if not whole and case.route.stream and not says_why(taken):
        yield f"ends without a word: {taken.body[-80:]!r}"


def refuses(taken: Taken) -> bool:
    """Is it a whole error in JSON, or the host's own words?"""
    return taken.headers["x-olla-endpoint"] != "none" or bool(taken.json["error"])


def says_why(taken: Taken) -> bool:
    """Is there an error in what was streamed?"""
    return b'"error"' in taken.body


def looks_whole(case: Case, taken: Taken) -> bool:
    """Would a client take this for all of an answer?"""
    body, path = taken.body, case.route.path
    if not case.route.stream:
        return closed(body)
    if path.endswith(MESSAGES):
        return b"message_stop" in body and not says_why(taken)
    if "/v1/" in path:
        return b"data: [DONE]" in body and not says_why(taken)
    lines = [line for line in body.split(b"\n") if b'"done":true' in line]
    return bool(lines) and not says_why(taken)


def closed(body: bytes) -> bool:
    """Is it an object that says no error and, where it has such words, that it is done?"""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return False
    ended = [value.get("done"), value.get("stop_reason"), *(one["finish_reason"] for one in value.get("choices", ()))]
    return "error" not in value and ("data" in value or "embeddings" in value or any(ended))


def unsaid(front: Front, records: list[logging.LogRecord]) -> Iterator[str]:
    """Failures of hosts without one line each in the log."""
    told = Counter(getattr(record, "endpoint", "") for record in records if record.name == "arena.proxy.forward")
    for name, counts in front.fleet.book.by_endpoint().items():
        if name in FAULTS and name not in QUIET and told[name] != counts.failures:
            yield f"{name} failed {counts.failures} times, and the log tells of {told[name]}"


@pytest.mark.timeout(300)
async def test_no_fault_does_what_must_never_be(caplog: pytest.LogCaptureFixture, capsys: Any) -> None:
    caplog.set_level(logging.WARNING, "arena.proxy.forward")
    began_s, asked = time.monotonic(), {case.request_id: case for group in cases() for case in group}
    async with hosts() as front:
        fakes = tuple(front.fakes.values())
        await Run(front).neighbour(ROUTES[0])
        before, run = level(*fakes), Run(front)
        for group in cases():
            await run.group(group)
        wrong = [*run.wrong, *run.repeated(asked), *unsaid(front, caplog.records)]
        for name, fault in FAULTS.items():
            if fault.accept != "normal":
                front.fakes[name].state(accept="normal")  # what it holds open itself is no leak of ours
        assert not wrong, "\n".join(wrong)
        assert run.done == len(asked) >= 300
        await settled(lambda: left(before, front, fakes), SETTLE_S)
    took = f"0 hung, 0 cut in silence, {time.monotonic() - began_s:.1f} s"
    with capsys.disabled():
        sys.stdout.write(f"\n{run.done} faults on {len(ROUTES)} routes: {took}\n")


def left(before: Level, front: Front, fakes: tuple[FakeOllama, ...]) -> str:
    """What is still in use."""
    return leak(before, level(*fakes)) or ("" if front.clean else "a request")
