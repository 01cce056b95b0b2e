"""A file is replaced whole or not at all, and votes are read where nothing may be written."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from arena.errors import BadRequest
from arena.store import Store, backup, own_descriptor, readable, replacing
from tests.store.votes import vote


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_the_place_of_the_old_one_with_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "votes.csv"
    file.write_text("old")
    file.chmod(0o640)
    with replacing(file) as target:
        target.write(b"new")
        assert file.read_text() == "old"
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("new", 0o640)
    assert names(tmp_path) == ["votes.csv"]


@pytest.mark.parametrize("refused", [0, 1, 2], ids=["none", "the owner", "both"])
def test_owner_and_group_stay_where_we_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: int) -> None:
    file, given = tmp_path / "votes.csv", []
    file.write_text("old")
    file.chmod(0o640)
    found = file.stat()

    def chown(path: Path, owner: int, group: int) -> None:
        given.append((path.name, path.stat().st_ino, owner, group))
        if len(given) > 2 - refused:
            raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", chown)
    with replacing(file) as target:
        target.write(b"new")
    made = file.stat()
    assert given == [("made", made.st_ino, -1, found.st_gid), ("made", made.st_ino, found.st_uid, -1)]
    assert (file.read_text(), made.st_mode & 0o777) == ("new", 0o640)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_file_of_another_stays_theirs(tmp_path: Path) -> None:
    file = tmp_path / "votes.csv"
    file.write_text("old")
    os.chown(file, 65534, 65533)
    file.chmod(0o4750)
    with replacing(file) as target:
        target.write(b"new")
    made = file.stat()
    assert (file.read_text(), made.st_uid, made.st_gid, made.st_mode & 0o7777) == ("new", 65534, 65533, 0o4750)


def test_a_file_that_is_mounted_itself_is_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "votes.csv"
    file.write_text("old, and longer than the new one")
    before, synced = file.stat().st_ino, []
    really = os.fsync

    def busy(made: Path, real: Path) -> None:
        assert made.read_bytes() == b"new"
        raise OSError(errno.EBUSY, "Device or resource busy")

    def fsync(number: int) -> None:
        synced.append(os.fstat(number).st_ino)
        really(number)

    monkeypatch.setattr(os, "replace", busy)
    monkeypatch.setattr(os, "fsync", fsync)
    with replacing(file) as target:
        target.write(b"new")
    assert (file.read_text(), file.stat().st_ino, before in synced) == ("new", before, True)
    assert names(tmp_path) == ["votes.csv"]


def test_links_that_lead_to_themselves_stay(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.symlink_to(second)
    second.symlink_to(first)
    with pytest.raises(BadRequest, match="first cannot be written: Too many levels"), replacing(first):
        pass
    assert first.is_symlink()
    assert names(tmp_path) == ["first", "second"]


def test_a_file_that_was_not_there_is_made_for_whom_the_mask_allows(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        with replacing(tmp_path / ("n" * 255)) as target:
            target.write(b"new")
    finally:
        os.umask(mask)
    assert (tmp_path / ("n" * 255)).stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_the_old_file_stays_where_the_new_one_is_not_whole(tmp_path: Path, fault: BaseException) -> None:
    file = tmp_path / "votes.csv"
    file.write_text("old")

    def broken_off() -> None:
        with replacing(file) as target:
            target.write(b"half")
            raise fault

    with pytest.raises(BadRequest if isinstance(fault, OSError) else KeyboardInterrupt) as caught:
        broken_off()
    assert not isinstance(fault, OSError) or str(caught.value) == f"{file} cannot be written: No space left on device"
    assert (file.read_text(), names(tmp_path)) == ("old", ["votes.csv"])


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "votes.csv"
    link.symlink_to(tmp_path / "disk" / "votes")
    with replacing(link) as target:
        target.write(b"new")
    assert link.is_symlink()
    assert (tmp_path / "disk" / "votes").read_text() == "new"


def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    with replacing(pipe) as target:
        target.write(b"new")
    reader.join(10)
    assert (read, pipe.is_fifo()) == (["new"], True)


@pytest.mark.parametrize("place", ["/dev/fd", "/proc/self/fd", "/proc/thread-self/fd"])
def test_what_is_open_already_is_added_to(tmp_path: Path, place: str) -> None:
    """As `echo head > log; votes export /dev/fd/3 3>> log` asks for."""
    log, link = tmp_path / "log", tmp_path / "link"
    log.write_text("head\n")
    before = log.stat().st_ino
    with log.open("ab") as opened:
        link.symlink_to(f"{place}/{opened.fileno()}")
        for file in (Path(f"{place}/{opened.fileno()}"), link):
            with replacing(file) as target:
                target.write(b"row\n")
    assert (log.read_text(), log.stat().st_ino) == ("head\nrow\nrow\n", before)
    assert names(tmp_path) == ["link", "log"]


def test_what_another_process_has_open_is_added_to(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("head\n")
    with log.open("ab") as opened, subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=opened) as other:
        with replacing(Path(f"/proc/{other.pid}/fd/1")) as target:
            target.write(b"row\n")
        other.communicate(b"tail\n", timeout=20)
    assert log.read_text() == "head\nrow\ntail\n"


def test_which_files_lead_to_what_is_open(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert [own_descriptor(Path(f"/dev/{name}")) for name in ("stdout", "stderr", "fd/7")] == [1, 2, 7]
    for other in (Path("/dev/null"), Path("/dev/fd"), Path("/proc/1/fd/1"), Path("/dev/fd/x"), loop, tmp_path):
        assert own_descriptor(other) is None


def test_no_backup_replaces_what_is_open(sqlite: Store, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("head")
    with log.open("ab") as opened, pytest.raises(BadRequest, match="cannot be written: it is no file of its own"):
        backup(sqlite, Path(f"/dev/fd/{opened.fileno()}"))
    assert log.read_text() == "head"


@pytest.mark.parametrize(("name", "said"), [("", "Is a directory"), ("no/x", "No such file or directory")])
def test_what_cannot_be_written_is_told(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(BadRequest, match=f"^{tmp_path / name} cannot be written: {said}$"), replacing(tmp_path / name):
        pass


@pytest.mark.parametrize(("kept", "said"), [("file", "it is write-protected"), (".", "its folder takes no new file")])
def test_what_is_protected_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str, said: str
) -> None:
    file, protected = tmp_path / "file", tmp_path / kept
    file.write_text("old")
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != protected)
    with pytest.raises(BadRequest, match=f"^{file} cannot be written: {said}"), replacing(file):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert file.read_text() == "old"


def at_rest(store: Store, file: Path, folder: Path) -> None:
    store.close()
    shutil.copy(file, folder)


def killed(store: Store, file: Path, folder: Path) -> None:
    for suffix in ("", "-wal"):
        shutil.copy(f"{file}{suffix}", folder)


def killed_with_its_index(store: Store, file: Path, folder: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        shutil.copy(f"{file}{suffix}", folder)


def in_use(store: Store, file: Path, folder: Path) -> None:
    folder.rmdir()
    folder.symlink_to(file.parent)


def votes_in(folder: Path) -> dict[str, bytes]:
    """The files that hold votes, with their bytes; the index beside them is also for those who only read."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith("-shm")}


@pytest.mark.parametrize("left", [at_rest, killed, killed_with_its_index, in_use])
def test_votes_are_read_where_nothing_may_be_written(
    sqlite: Store,
    file: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    left: Callable[[Store, Path, Path], None],
) -> None:
    sqlite.add_vote(vote("b1"))
    out, folder = (tmp_path_factory.mktemp(name) for name in ("out", "data"))
    left(sqlite, file, folder)
    before = votes_in(folder)
    closed = folder.resolve()
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).resolve().is_relative_to(closed))
    store = Store(f"sqlite:///{folder / file.name}")
    with readable(store) as copy:
        assert [cast.battle_id for _, cast in copy.votes()] == ["b1"]
    assert backup(store, out / "kept") == 1
    assert votes_in(folder) == before
    assert not store.database.opened


def test_a_store_that_may_be_written_is_no_copy(store: Store) -> None:
    with readable(store) as same:
        assert same is store


def test_what_is_no_database_and_may_not_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "arena.sqlite3"
    file.write_bytes(b"no database" * 99)
    Path(f"{file}-shm").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(BadRequest, match=f"^{file} cannot be read: file is not a database$"):
        backup(Store(f"sqlite:///{file}"), tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
