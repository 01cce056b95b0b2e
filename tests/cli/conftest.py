"""What the tests of the command line share: running it, and an arena for it to ask."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from arena import cli
from tests.cli.running import Outcome, Run, serving
from tests.fake_ollama import RunningFake


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line in this process, its standard input empty or `piped`."""

    def run_it(*words: str, piped: str = "") -> Outcome:
        monkeypatch.setattr("sys.stdin", io.StringIO(piped))
        with pytest.raises(SystemExit) as end:
            cli.main(words)
        captured = capsys.readouterr()
        return Outcome(int(end.value.code or 0), captured.out, captured.err)

    return run_it


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fake_thread: RunningFake) -> RunningFake:
    """Settings under which a command's own arena asks the fake and starts no engine."""
    monkeypatch.setenv("ARENA_ENDPOINTS", f"fake={fake_thread.url}")
    monkeypatch.setenv("ARENA_ENGINE", "off")
    monkeypatch.setenv("ARENA_DATA", str(tmp_path))
    return fake_thread


@pytest.fixture
def served(own: RunningFake) -> Iterator[str]:
    """The address of a running arena in front of the fake."""
    with serving() as url:
        yield url


@pytest.fixture(params=["own", "remote"])
def door(request: pytest.FixtureRequest) -> list[str]:
    """The options that lead a command to an arena of its own, or to a running one."""
    if request.param == "own":
        request.getfixturevalue("own")
        return []
    return ["--url", request.getfixturevalue("served")]
