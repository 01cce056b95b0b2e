"""One log, and two servers: an impatient one for silence, a patient one for all else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.fake_ollama import DEFAULT_MODELS, RunningFake, running_fake
from tests.faults.doors import good_model
from tests.faults.serving import LogLines, ServedArena, logged, served
from tests.faults.table import ANSWERS, BUDGET, GONE, Fault

SHORT_S = 0.7
"""The limits of the impatient server: to connect, to the first byte, between two reads."""


@pytest.fixture(scope="package")
def log_lines() -> Iterator[LogLines]:
    """The structured log."""
    with logged() as lines:
        yield lines


Pair = tuple[RunningFake, RunningFake]


@contextmanager
def pair() -> Iterator[Pair]:
    """An endpoint that lists every faulty model, and one that fails as a whole."""
    faulty = [fault.model for fault in ANSWERS.values() if fault.model != GONE]
    good = [good_model(seed) for seed in range(1, 9)]
    with running_fake([*DEFAULT_MODELS, *faulty, *good]) as fake, running_fake([GONE]) as other:
        yield fake, other


@pytest.fixture(scope="package")
def pairs() -> Iterator[tuple[Pair, Pair]]:
    """One for each server: the probes of a patient one would wait long at a silent route of the other's test."""
    with pair() as one, pair() as two:
        yield one, two


@pytest.fixture(scope="package")
def impatient(log_lines: LogLines, pairs: tuple[Pair, Pair]) -> Iterator[ServedArena]:
    """An arena that gives up after SHORT_S."""
    own, beside = pairs
    limits: dict[str, Any] = dict.fromkeys(("connect_timeout_s", "first_byte_timeout_s", "idle_timeout_s"), SHORT_S)
    with served(*own, lines=log_lines, beside=beside, max_answer_tokens=BUDGET, **limits) as arena:
        yield arena


@pytest.fixture(scope="package")
def patient(log_lines: LogLines, pairs: tuple[Pair, Pair]) -> Iterator[ServedArena]:
    """An arena that waits for what is connected, and lets answers grow without end."""
    beside, own = pairs
    endless: dict[str, Any] = {"max_answer_tokens": 10**9, "max_answer_bytes": 10**12}
    with served(*own, lines=log_lines, beside=beside, connect_timeout_s=SHORT_S, **endless) as arena:
        yield arena


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Fault | None:
    """What the test is about, unless it says so itself."""
    return None


@pytest.fixture
def arena(request: pytest.FixtureRequest, log_lines: LogLines, fault: Fault | None) -> Iterator[ServedArena]:
    """The impatient arena for what ends by a limit of it, since a busy machine makes sound answers late too, and else
    the patient one. Its endpoints are well again afterwards.
    """
    limited = fault is None or fault.accept == "blackhole" or fault.code in ("timeout", "budget_exceeded")
    arena: ServedArena = request.getfixturevalue("impatient" if limited else "patient")
    arena.ask("GET", "/api/models")
    yield arena
    for fake in arena.fakes:
        fake.reset()
