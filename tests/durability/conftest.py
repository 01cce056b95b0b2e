"""Arenas to break, on each database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.durability.clock import Clock
from tests.durability.site import Nursery, Site, running
from tests.fake_ollama import RunningFake
from tests.store.conftest import postgres as postgres
from tests.store.conftest import url as url


@pytest.fixture(scope="session")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Clock:
    """The wall clock of all servers here."""
    return Clock(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="session")
def nursery(clock: Clock) -> Iterator[Nursery]:
    """Where servers come from: the arena is imported once."""
    nursery = Nursery(clock.environment)
    yield nursery
    nursery.close()


@pytest.fixture
def settings(fake_session: RunningFake, url: str, tmp_path: Path) -> dict[str, str]:
    """The settings of an arena that keeps its votes at `url`."""
    settings = {"ARENA_ENDPOINTS": fake_session.url, "ARENA_DATA": str(tmp_path)}
    return settings if url.startswith("sqlite") else {**settings, "ARENA_DATABASE_URL": url}


@pytest.fixture
def site(nursery: Nursery, settings: dict[str, str]) -> Iterator[Site]:
    """A running arena."""
    with running(nursery, settings) as site:
        yield site
