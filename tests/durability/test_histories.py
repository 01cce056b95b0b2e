"""Votes and reads by many at once, while the server, its disk, its database or its clock fail: nothing contradicts."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress

import psycopg
import pytest
from msgspec import Struct

from arena.store import Store
from arena.store.database import WRITER_LOCK
from tests.durability.clock import Clock
from tests.durability.crowd import PATIENCE_S, Crowd
from tests.durability.history import Row, contradictions
from tests.durability.serving import PATIENCE
from tests.durability.site import Nursery, Site, running
from tests.store.postgres import Postgres

log = logging.getLogger(__name__)

SEEDS = int(os.environ.get("ARENA_TEST_HISTORIES", "0"))
"""How many histories of each fault. 0: one each with a single stroke, and only of what no other test does."""

ROUNDS = 3 if SEEDS else 1
"""How often the fault strikes in one history."""

BETWEEN = 2
"""Votes that must be kept before the next fault strikes: the arena has to recover from the last one."""

HOURS = 3600.0
YEAR_2038_S = 12 * 366 * 24 * HOURS


class Scene(Struct, frozen=True):
    """What a fault can get hold of."""

    site: Site
    crowd: Crowd
    url: str
    clock: Clock
    server: Callable[[], Postgres]

    def until_more(self, *outcomes: str, count: int = 1) -> None:
        """Wait until so many more of these have happened."""
        before = sum(self.crowd.outcomes[each] for each in outcomes)
        self.crowd.until(lambda now: sum(now[each] for each in outcomes) >= before + count)


def killed(scene: Scene) -> None:
    scene.site.kill()
    scene.site.start()


def halted(scene: Scene) -> None:
    scene.site.signal(signal.SIGSTOP)
    try:
        scene.until_more("vote unknown", "view unknown", "not begun")
    finally:
        scene.site.signal(signal.SIGCONT)


def locked(scene: Scene) -> None:
    """Somebody else writes, and does not come to an end."""
    with holding(scene):
        scene.until_more("vote refused")


@contextmanager
def holding(scene: Scene) -> Iterator[None]:
    if scene.url.startswith("sqlite"):
        other = sqlite3.connect(scene.url.removeprefix("sqlite:///"), isolation_level=None, timeout=60)
        with closing(other):
            other.execute("BEGIN EXCLUSIVE")
            yield
        return
    with scene.server().connection(database_of(scene.url)) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (WRITER_LOCK,))
        yield


def full(scene: Scene) -> None:
    """No file may grow any more: neither the log of SQLite, nor what the processes of PostgreSQL write."""
    if scene.url.startswith("sqlite"):
        limit_files([scene.site.pid], "4096")
        scene.until_more("vote refused")
        limit_files([scene.site.pid], "unlimited")
        return
    server, writers = scene.server(), set[int]()
    refused, deadline_s = scene.crowd.outcomes["vote refused"], time.monotonic() + PATIENCE_S
    while scene.crowd.outcomes["vote refused"] == refused:
        assert time.monotonic() < deadline_s
        new = set(backends(scene)) - writers  # a connection may be made at any time
        limit_files(new, "4096", server.user)
        writers |= new
    limit_files(writers, "unlimited", server.user)
    with scene.crowd.waiting():  # without room for its log it has begun anew
        server.await_answers()


def limit_files(pids: Iterable[int], size: str, user: str | None = None) -> None:
    """For processes of `user`; one that has ended meanwhile needs no limit."""
    for pid in pids:
        words = ["prlimit", f"--pid={pid}", f"--fsize={size}:unlimited"]
        subprocess.run(words, user=user, stderr=subprocess.DEVNULL, timeout=60, check=False)


def backends(scene: Scene) -> list[int]:
    """The processes of PostgreSQL that work for the arena; none while it recovers."""
    with suppress(psycopg.OperationalError), scene.server().connection() as connection:
        found = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = %s", (database_of(scene.url),)
        ).fetchall()
        return [int(str(pid)) for (pid,) in found]
    return []


def database_of(url: str) -> str:
    return url.partition("@/")[2].partition("?")[0]


def clock_jumps(scene: Scene) -> None:
    for seconds in (HOURS, -HOURS, YEAR_2038_S, 0.0):
        scene.clock.move(seconds)
        scene.until_more("new")


def crashed(scene: Scene) -> None:
    """The server of PostgreSQL ends at once, and comes back."""
    scene.server().stop(signal.SIGQUIT)
    try:
        scene.until_more("vote refused", "vote unknown")
    finally:
        with scene.crowd.waiting():
            scene.server().start()


def cut(scene: Scene) -> None:
    """A process of PostgreSQL is killed, whereupon it cuts every connection and recovers."""
    with suppress(ProcessLookupError):
        os.kill(backends(scene)[0], signal.SIGKILL)
    with scene.crowd.waiting():
        scene.server().await_answers()


ALL = (killed, halted, locked, full, clock_jumps)
FAULTS: dict[str, tuple[Callable[[Scene], None], ...]] = {
    "sqlite": ALL if SEEDS else ALL[1:],
    "postgresql": (*ALL, crashed, cut) if SEEDS else (crashed,),
}


def everything_in(url: str) -> list[Row]:
    store = Store(url)
    with closing(store):
        return [(number, vote.battle_id, vote.voter, vote.verdict) for number, vote in store.votes()]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(SEEDS or 1))
@pytest.mark.parametrize(
    ("url", "fault"),
    [pytest.param(name, fault, id=f"{name}-{fault.__name__}") for name, faults in FAULTS.items() for fault in faults],
    indirect=["url"],
)
def test_no_history_contradicts_itself(
    nursery: Nursery,
    settings: dict[str, str],
    url: str,
    fault: Callable[[Scene], None],
    seed: int,
    clock: Clock,
    request: pytest.FixtureRequest,
) -> None:
    impatient = {**settings, PATIENCE: "0.3"} if fault is locked else settings
    with running(nursery, impatient) as site:
        crowd = Crowd(site, url, seed=seed, timeout_s=3.0 if fault is halted else 60.0)
        scene = Scene(site, crowd, url, clock, lambda: request.getfixturevalue("postgres"))
        with closing(crowd), crowd.acting():
            for _ in range(ROUNDS):
                scene.until_more("new", count=BETWEEN)
                fault(scene)
            scene.until_more("new", count=BETWEEN)
        site.kill()
    rows = everything_in(url)
    assert contradictions(crowd.deeds, crowd.listings, rows) == []
    assert len(rows) >= BETWEEN * (ROUNDS + 1)
    log.info("%d votes; %s", len(rows), dict(crowd.outcomes))
