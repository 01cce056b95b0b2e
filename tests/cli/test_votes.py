"""The commands that bring votes in and take them out."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from arena import cli
from arena.cli.store import ENGINE_FOLDERS, FLEET_FILE
from arena.cli.votes import _writable
from arena.engine.config import Config
from arena.errors import BadRequest
from arena.fleet import config as fleet_config
from arena.store import Store
from tests.cli.running import Run

ROW = {"question_id": "q", "model_a": "=m", "model_b": "n", "winner": "model_a", "tstamp": 1}


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder the settings name."""
    monkeypatch.setenv("ARENA_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "data"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with one vote."""
    file = tmp_path / "battles.json"
    file.write_text(json.dumps([ROW]))
    return file


def test_in_and_out_and_in_elsewhere(run: Run, file: Path, tmp_path: Path) -> None:
    assert run("votes", "import", str(file)).out == "1 votes of the format lmarena are new, 0 were here already.\n"
    assert "0 votes of the format lmarena are new, 1 were" in run("votes", "import", str(file), "--unrated").out
    told = run("votes", "export")
    assert json.loads(told.out)["source"] == "lmarena"
    sheet = tmp_path / "votes.CSV"
    assert run("votes", "export", str(sheet)).out == f"Written to {sheet}.\n"
    assert ",'=m,n,model_a," in sheet.read_text()
    assert run("votes", "export", "--format", "preferences").out == "", "the answers were not kept"
    lines = tmp_path / "votes.jsonl"
    run("votes", "export", str(lines))
    elsewhere = ("--data", str(tmp_path / "other"))
    assert "1 votes of the format arena are new" in run("votes", "import", str(lines), *elsewhere).out
    assert (tmp_path / "other" / "arena.sqlite3").exists()


def test_from_a_pipe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(ROW).encode())))
    with pytest.raises(SystemExit) as end:
        cli.main(["votes", "import", "-", "--format", "lmarena"])
    assert end.value.code == 0
    assert "1 votes" in capsys.readouterr().out


def test_from_a_named_pipe(run: Run, tmp_path: Path) -> None:
    """What a shell gives for `<(zcat votes.gz)` cannot be read twice."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(json.dumps(ROW),), daemon=True)
    writer.start()
    assert "1 votes of the format lmarena are new" in run("votes", "import", str(pipe)).out
    writer.join()


def test_an_export_to_a_full_disk_behind_the_standard_output_is_told() -> None:
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", SimpleNamespace(buffer=full, flush=lambda: None))
        with (
            pytest.raises(BadRequest, match="The standard output cannot be written: No space left"),
            _writable(Path("-")) as out,
        ):
            out.write(b"x")


def test_an_export_that_breaks_off_leaves_the_old_file(
    run: Run, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("votes", "import", str(file))
    sheet = tmp_path / "votes.csv"
    sheet.write_text("old")

    def full(store: Store) -> Iterator[bytes]:
        yield b"half"
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("arena.leaderboard.votes_csv", full)
    told = run("votes", "export", str(sheet))
    assert (told.status, told.err) == (1, f"error: {sheet} cannot be written: No space left on device\n")
    assert sheet.read_text() == "old"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_export_that_is_told_to_end_leaves_nothing_behind(
    run: Run, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    run("votes", "import", str(file))
    sheet = tmp_path / "out" / "votes.csv"
    sheet.parent.mkdir()
    sheet.write_text("old")

    def interrupted(store: Store) -> Iterator[bytes]:
        yield b"half"
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(signal.SIGHUP)  # the clean-up goes on

    monkeypatch.setattr("arena.leaderboard.votes_csv", interrupted)
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)]
    assert run("votes", "export", str(sheet)).status == 128 + number
    assert [path.name for path in sheet.parent.iterdir()] == ["votes.csv"]
    assert sheet.read_text() == "old"
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)] == before


def test_an_export_outlives_its_terminal_where_it_shall(
    run: Run, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("votes", "import", str(file))

    def hung_up(store: Store) -> Iterator[bytes]:
        signal.raise_signal(signal.SIGHUP)
        yield b"whole"

    monkeypatch.setattr("arena.leaderboard.votes_csv", hung_up)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run("votes", "export", str(tmp_path / "votes.csv")).status == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (tmp_path / "votes.csv").read_text() == "whole"


def test_an_export_to_the_device_of_the_standard_output_goes_there(run: Run, file: Path) -> None:
    run("votes", "import", str(file))
    exported = run("votes", "export").out
    assert exported.endswith("}\n")
    for name in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        assert run("votes", "export", name).out == exported


def test_an_export_never_writes_over_the_votes(run: Run, file: Path, data: Path) -> None:
    run("votes", "import", str(file))
    for name in ("arena.sqlite3", "arena.sqlite3-wal"):
        told = run("votes", "export", str(data / name))
        assert (told.status, "holds the votes themselves" in told.err) == (1, True)
    assert "0 votes of the format lmarena are new, 1 were" in run("votes", "import", str(file)).out


def test_neither_exports_nor_backups_write_over_keys_or_settings(
    run: Run, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARENA_FLEET", "hosts")
    (tmp_path / "link").symlink_to("data/keys.json")
    run("votes", "import", str(file))
    own = ("keys.json", "keys-usage.json", "fleet.yaml", "models/m.gguf", "engine/digests.json")
    for name in (*(f"data/{name}" for name in own), ".env", "hosts", "link"):
        for command in (("votes", "export"), ("store", "backup")):
            told = run(*command, name)
            said = f"error: {name} is one of the arena's own files: give another file\n"
            assert (told.status, told.err) == (1, said)
        assert not (tmp_path / name).exists()


def test_the_names_of_the_own_files_are_those_in_use() -> None:
    assert fleet_config.FILE == FLEET_FILE
    assert Config(data=Path("data")).models == Path("data") / ENGINE_FOLDERS[0]


def test_beside_the_votes_there_is_room_for_exports_and_backups(run: Run, file: Path, data: Path) -> None:
    run("votes", "import", str(file))
    for command in (("votes", "export"), ("store", "backup")):
        assert run(*command, str(data / "votes.json")).status == 0


def test_an_export_never_writes_over_the_votes_of_another_arena(run: Run, file: Path, tmp_path: Path) -> None:
    run("votes", "import", str(file))
    other = Store(f"sqlite:///{tmp_path / 'other'}")
    other.open()
    told = run("votes", "export", str(tmp_path / "other"))
    assert (told.status, "other is in use as a database, with other-wal beside it" in told.err) == (1, True)
    assert other.last_number() == 0
    other.close()
    assert (tmp_path / "other").read_bytes().startswith(b"SQLite")
    told = run("votes", "export", str(tmp_path / "other-journal"))
    assert (told.status, "other-journal belongs to the database" in told.err) == (1, True)
    assert not (tmp_path / "other-journal").exists()


def test_a_store_that_cannot_be_used_is_named(run: Run, file: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").symlink_to(tmp_path / "disk that is not mounted")
    told = run("votes", "import", str(file), "--data", str(tmp_path / "taken"))
    assert told.status == 1
    assert f"error: The store in {tmp_path}/taken cannot be used now: its folder cannot be used." in told.err


def test_mistakes_are_told(run: Run, file: Path, data: Path, tmp_path: Path) -> None:
    for words, status, said in (
        (("export",), 1, f"no store yet at {data}/arena.sqlite3: "),
        (("import", str(tmp_path / "none")), 1, "none cannot be read: No such file"),
        (("import", str(file), "--format", "llm-comparator"), 1, "the format lmarena, not llm-comparator"),
        (("import", str(file), "--format", "csv"), 2, "--format"),
        (("import",), 2, "FILE"),
    ):
        outcome = run("votes", *words)
        assert (outcome.status, said in outcome.err) == (status, True), outcome
    run("votes", "import", str(file))
    outcome = run("votes", "export", str(tmp_path))
    assert (outcome.status, "cannot be written" in outcome.err) == (1, True)
