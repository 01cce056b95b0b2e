"""A vote is on the disk before a byte of its answer is written: the order of the server's own system calls tells."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.durability.site import END_S, Person, Site

SYNCED = int(os.environ.get("ARENA_TEST_SYNCED", "20"))
EACH = 10
"""Battles of one person that wait for their vote."""

CALLS = "fdatasync,fsync,write,writev,sendto,sendmsg"
CALL = re.compile(r"(\d+) +(?:<\.\.\. )?(\w+)")


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A file, whose writes this process can be seen to make."""
    return f"sqlite:///{tmp_path / 'arena.sqlite3'}"


@contextmanager
def traced(pid: int, target: Path) -> Iterator[None]:
    """Have the system calls of a process written to `target` for the length of the block."""
    words = ["strace", "-f", "-y", "-e", f"trace={CALLS}", "-o", str(target), "-p", str(pid)]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        while "attached" not in (said := process.stderr.readline()):
            if not said or "ptrace" in said:
                pytest.skip("strace may not trace here")
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=END_S)


def order_of_answers(trace: str) -> list[bool]:
    """Of each answer to a vote, in their order: had the log of the database been synced since the answer before it?"""
    synced, syncing, order = False, set[str](), []
    for line in trace.splitlines():
        found = CALL.match(line)
        if found is None:
            continue
        thread, call = found.groups()
        if call in ("fdatasync", "fsync"):
            if "-wal>" in line:
                syncing.add(thread)
            if thread in syncing and re.search(r"\) += 0$", line):
                synced = True
                syncing.discard(thread)
        elif '"HTTP/1.1 200 ' in line:
            order.append(synced)
            synced = False
    return order


def test_the_trace_is_read_right() -> None:
    told = 'write(9<socket:[1]>, "HTTP/1.1 200 OK\\r\\ncontent-length: 9"..., 677) = 677'
    whole, begun = "7 fdatasync(5</d/arena.sqlite3-wal>) = 0", "7 fdatasync(5</d/arena.sqlite3-wal> <unfinished ...>"
    resumed, failed = "7 <... fdatasync resumed>) = 0", "7 <... fdatasync resumed>) = -1 EIO (Input/output error)"
    foreign = "7 fdatasync(6</d/other>) = 0"
    for lines, order in (
        ((whole, f"8 {told}", f"8 {told}"), [True, False]),
        ((begun, resumed, f"8 {told}"), [True]),
        ((begun, f"8 {told}", resumed), [False]),
        ((begun, failed, f"8 {told}"), [False]),
        ((foreign, f"8 {told}"), [False]),
    ):
        assert order_of_answers("\n".join(lines)) == order


@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_each_vote_is_synced_before_it_is_answered(site: Site, tmp_path: Path) -> None:
    people = [Person(site, f"127.0.1.{number + 1}") for number in range(-(-SYNCED // EACH))]
    battles = [(person, person.begin()) for person in people for _ in range(EACH)][:SYNCED]
    assert people[0].vote(people[0].begin(), "a").status == 200, "the file has been made, and its log"
    with traced(site.pid, tmp_path / "trace"):  # every answer in it is one to a vote
        for person, battle in battles:
            assert person.vote(battle, "b").status == 200
    for person in people:
        person.leave()
    order = order_of_answers((tmp_path / "trace").read_text(encoding="utf-8", errors="replace"))
    assert order == [True] * SYNCED
