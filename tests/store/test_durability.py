"""What was acknowledged is there: after kill -9, after crashes of the database, and in every backup."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import sqlalchemy

from arena.errors import StoreUnavailable
from arena.store import Store, backup, restore
from tests.sockets import readable
from tests.store.casting import cast
from tests.store.postgres import Postgres
from tests.store.votes import battle, vote

KILLS = int(os.environ.get("ARENA_TEST_KILLS", "5"))
CRASHES = int(os.environ.get("ARENA_TEST_CRASHES", "1"))
FORKS = multiprocessing.get_context("forkserver")
"""A process that has imported everything, and splits off a fresh one at once."""


class Caster:
    """A process that casts votes, from the number `first` on."""

    def __init__(self, url: str, first: int = 0) -> None:
        FORKS.set_forkserver_preload(["tests.store.casting"])
        self._here, there = FORKS.Pipe(duplex=False)
        self._process = FORKS.Process(target=cast, args=(url, first, there))
        self._process.start()
        there.close()
        self._told = open(self._here.fileno(), "rb", closefd=False)  # noqa: SIM115

    def acknowledged(self, count: int) -> list[int]:
        """The next votes that were acknowledged, so many."""
        return [int(self._told.readline()) for _ in range(count)]

    def kill(self) -> list[int]:
        """End it as a crash would; returns what else it had told of."""
        self._process.kill()
        rest = [int(line) for line in self._told.read().split()]
        self._told.close()
        self._here.close()
        self._process.join(20)
        self._process.close()
        return rest


@pytest.mark.timeout(60 + KILLS * 3)
def test_kill_9_loses_and_doubles_nothing(url: str) -> None:
    chance = random.Random(7)
    first, since, store = 0, 0, Store(url)
    for _ in range(KILLS):
        caster = Caster(url, first)
        acknowledged = caster.acknowledged(chance.randint(1, 25)) + caster.kill()
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


@pytest.mark.timeout(60 + CRASHES * 60)
def test_crashes_of_the_database_lose_and_double_nothing(postgres: Postgres) -> None:
    chance, url = random.Random(3), postgres.database()
    caster, acknowledged = Caster(url), list[int]()
    for _ in range(CRASHES):
        acknowledged += caster.acknowledged(chance.randint(1, 25))
        postgres.stop(signal.SIGQUIT)
        postgres.start()
    acknowledged += caster.acknowledged(1) + caster.kill()
    assert acknowledged == list(range(len(acknowledged)))
    store = Store(url)
    kept = [int(vote.battle_id[1:]) for _, vote in store.votes()]
    store.close()
    assert kept == list(range(len(kept))), "none twice, and none left out"
    assert len(kept) - len(acknowledged) in (0, 1)


def test_a_backup_made_while_votes_come_in_is_the_store_at_one_moment(url: str, tmp_path: Path) -> None:
    store, told, sizes = Store(url), list[int](), list[int]()
    store.open()  # which takes the lock for writing, and whoever casts without a pause leaves hardly a gap
    caster = Caster(url)
    files = [tmp_path / f"{number}.backup" for number in range(3)]
    for file in files:
        told += caster.acknowledged(5)
        while len(told) <= max(sizes, default=0):  # told late of what the last backup has already
            told += caster.acknowledged(1)
        sizes.append(backup(store, file))
        assert sizes[-1] >= len(told)
    caster.kill()
    assert sizes == sorted(set(sizes)), "votes have come in meanwhile"
    everything = list(store.votes())
    for file, size in zip(files, sizes, strict=True):
        restored = Store(f"sqlite:///{file}.sqlite3")
        assert restore(restored, file) == size
        assert list(restored.votes()) == everything[:size]
        assert all(restored.battle(f"b{number}") == battle(f"b{number}") for number in range(size))
        assert restored.battle(f"b{size}") is None
        assert restored.configurations() == store.configurations()
        assert restored.pseudonym("ann") == store.pseudonym("ann")
        restored.close()
    store.close()


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


@contextmanager
def cutting_at_commit(server: Path) -> Iterator[Path]:
    """A folder with a socket that leads to the one of PostgreSQL, but loses the answer to the second COMMIT."""
    with TemporaryDirectory(prefix="arena-cut-") as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/{server.name}")
        listener.listen()
        listener.settimeout(60)
        cutter = threading.Thread(target=_cut_at_commit, args=(listener, server))
        cutter.start()
        yield Path(folder)
        cutter.join(60)


def _cut_at_commit(listener: socket.socket, server: Path) -> None:
    client, _ = listener.accept()
    commits = 0
    with client, socket.socket(socket.AF_UNIX) as upstream:
        upstream.connect(str(server))
        while True:
            for side in readable(client, upstream, within_s=60):
                data = side.recv(65536)
                (upstream if side is client else client).sendall(data)
                commits += side is client and b"COMMIT\0" in data
                if commits == 2:
                    assert upstream.recv(65536)
                    return


def test_a_connection_cut_after_the_commit_was_sent_says_that_nobody_knows(postgres: Postgres) -> None:
    url = postgres.database()
    direct = Store(url)
    direct.open()
    with cutting_at_commit(postgres.folder / ".s.PGSQL.5432") as folder:
        store = Store(url.replace(str(postgres.folder), str(folder)))
        store.open()
        with pytest.raises(StoreUnavailable, match="not known whether this was saved; it is safe to try again"):
            store.add_vote(vote("b1"), battle("b1"))
        store.close()
    assert direct.add_vote(vote("b1"), battle("b1")) == vote("b1")
    assert direct.last_number() == 1
    direct.close()
