"""One log, and two servers: an impatient one for faults, a patient one for clients who leave."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.fake_ollama import DEFAULT_MODELS, RunningFake, running_fake
from tests.faults.doors import good_model
from tests.faults.serving import LogLines, ServedArena, logged, served
from tests.faults.table import ANSWERS, BUDGET, GONE

SHORT_S = 0.7
"""The limits of the impatient server: to connect, to the first byte, between two reads."""


@pytest.fixture(scope="package")
def log_lines() -> Iterator[LogLines]:
    """The structured log."""
    with logged() as lines:
        yield lines


@contextmanager
def fakes() -> Iterator[tuple[RunningFake, RunningFake]]:
    """An endpoint that lists every faulty model, and one that fails as a whole.

    Each server has its own: the probes of a patient one would wait long at a silent route of the other's test.
    """
    faulty = [fault.model for fault in ANSWERS.values() if fault.model != GONE]
    good = [good_model(seed) for seed in range(1, 9)]
    with running_fake([*DEFAULT_MODELS, *faulty, *good]) as fake, running_fake([GONE]) as other:
        yield fake, other


@pytest.fixture(scope="package")
def impatient(log_lines: LogLines) -> Iterator[ServedArena]:
    """An arena that gives up after SHORT_S."""
    limits: dict[str, Any] = dict.fromkeys(("connect_timeout_s", "first_byte_timeout_s", "idle_timeout_s"), SHORT_S)
    with fakes() as both, served(*both, lines=log_lines, max_answer_tokens=BUDGET, **limits) as arena:
        yield arena


@pytest.fixture
def arena(impatient: ServedArena) -> Iterator[ServedArena]:
    """The impatient arena, its endpoints well again afterwards."""
    impatient.ask("GET", "/api/models")
    yield impatient
    for fake in impatient.fakes:
        fake.reset()


@pytest.fixture(scope="package")
def patient(log_lines: LogLines) -> Iterator[ServedArena]:
    """An arena that waits for what is connected, and lets answers grow without end."""
    endless: dict[str, Any] = {"max_answer_tokens": 10**9, "max_answer_bytes": 10**12}
    with fakes() as both, served(*both, lines=log_lines, connect_timeout_s=SHORT_S, **endless) as arena:
        yield arena
