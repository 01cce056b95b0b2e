"""A store on each database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from arena.store import Store
from tests.store.postgres import Postgres, why_not


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for all tests; who breaks it mends it."""
    if reason := why_not():
        pytest.skip(reason)
    server = Postgres()
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'arena.sqlite3'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.database()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """An empty store on it."""
    store = Store(url)
    yield store
    store.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the store of SQLite lies."""
    return tmp_path / "arena.sqlite3"


@pytest.fixture
def sqlite(file: Path) -> Iterator[Store]:
    """An empty store on SQLite, opened."""
    store = Store(f"sqlite:///{file}")
    store.open()
    yield store
    store.close()
