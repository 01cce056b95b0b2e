"""What was acknowledged is there: after kill -9, after a crash of the database, and on the disk before it is told."""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy

from arena.errors import StoreUnavailable
from arena.store import Store
from tests.store.casting import cast
from tests.store.postgres import Postgres
from tests.store.votes import battle, vote

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("ARENA_TEST_KILLS", "10"))
SYNCED = int(os.environ.get("ARENA_TEST_SYNCED", "50"))
CAST = [sys.executable, "-m", "tests.store.casting"]
FORKS = multiprocessing.get_context("forkserver")
"""A process that has imported everything, and splits off a fresh one at once."""


def killed_after(url: str, first: int, count: int) -> list[int]:
    """The votes that were acknowledged when the process was killed, which is after `count` of them, or a bit later."""
    FORKS.set_forkserver_preload(["tests.store.casting"])
    here, there = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=cast, args=(url, first, there))
    process.start()
    there.close()
    with open(here.fileno(), "rb", closefd=False) as told:
        numbers = [int(told.readline()) for _ in range(count)]
        process.kill()
        numbers += map(int, told.read().split())
    here.close()
    process.join(20)
    process.close()
    return numbers


@pytest.mark.timeout(60 + KILLS * 3)
def test_kill_9_loses_and_doubles_nothing(url: str) -> None:
    chance = random.Random(7)
    first, since, store = 0, 0, Store(url)
    for _ in range(KILLS):
        acknowledged = killed_after(url, first, chance.randint(1, 25))
        found = list(store.votes(since))
        kept = [int(vote.battle_id[1:]) for _, vote in found]
        assert kept == list(range(first, first + len(kept))), "none twice, none that was never cast"
        assert kept[: len(acknowledged)] == acknowledged
        assert store.battle(f"b{kept[-1]}") == battle(f"b{kept[-1]}")
        first, since = kept[-1] + 1, found[-1][0]
    assert [vote.battle_id for _, vote in store.votes()] == [f"b{number}" for number in range(first)]
    assert len(store.configurations()) == 2
    if store.database.file is not None:
        with store.database.reading() as connection:
            assert connection.execute(sqlalchemy.text("PRAGMA integrity_check")).scalar() == "ok"
    store.close()


@pytest.mark.timeout(120)
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_each_vote_is_synced_before_it_is_told(file: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    words = ["strace", "-f", "-y", "-e", "trace=fdatasync,fsync,write", "-o", str(trace), *CAST]
    done = subprocess.run(
        [*words, f"sqlite:///{file}", str(SYNCED)], cwd=ROOT, capture_output=True, timeout=110, check=False
    )
    if done.returncode and b"ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.stdout.split() == [b"%d" % number for number in range(SYNCED)]
    synced, order = False, []
    for line in trace.read_text(encoding="utf-8", errors="replace").splitlines():
        if re.search(rf"f(?:data)?sync\(\d+<{re.escape(str(file))}-wal>\)\s+= 0", line):
            synced = True
        elif re.search(r'write\(1<.*>, "\d+\\n"', line):
            order.append(synced)
            synced = False
    assert order == [True] * SYNCED


def test_postgresql_syncs_whatever_the_server_is_set_to(postgres: Postgres) -> None:
    url = postgres.database()
    name = url.partition("@/")[2].partition("?")[0]
    with postgres.connection() as connection:
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = off".encode())
    store = Store(url)
    store.open()
    with store.database.writing() as writing:
        assert writing.execute(sqlalchemy.text("SHOW synchronous_commit")).scalar() == "on"
    store.close()


def test_postgresql_crashes_and_comes_back(postgres: Postgres) -> None:
    store = Store(postgres.database())
    store.add_vote(vote("b1"), battle("b1"))
    postgres.stop(signal.SIGQUIT)
    try:
        with pytest.raises(StoreUnavailable, match="does not answer"):
            store.add_vote(vote("b2"))
    finally:
        postgres.start()
    store.add_vote(vote("b2"))
    postgres.kill_backends()
    assert [kept.battle_id for _, kept in store.votes()] == ["b1", "b2"]
    store.close()


def test_a_connection_cut_within_a_vote_saves_nothing_and_the_vote_can_be_sent_again(postgres: Postgres) -> None:
    store = Store(postgres.database())
    store.open()

    def cut_before_its_end() -> None:
        with store.database.writing() as connection:
            connection.execute(sqlalchemy.text("INSERT INTO facts VALUES ('half', 'a vote')"))
            postgres.kill_backends()

    with pytest.raises(StoreUnavailable):
        cut_before_its_end()
    with store.database.reading() as connection:
        assert [row.name for row in connection.execute(sqlalchemy.text("SELECT name FROM facts"))] == ["salt"]
    for _ in range(2):
        store.add_vote(vote("b1"), battle("b1"))
    assert store.last_number() == 1
    store.close()
