"""The commands about the fleet file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from arena.cli.fleet import app
from tests.cli.running import Run
from tests.fake_ollama import RunningFake

GONE = "http://127.0.0.1:1"


@pytest.fixture
def file(tmp_path: Path, fake_thread: RunningFake, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fleet of one host that is there."""
    monkeypatch.setenv("COLUMNS", "200")
    path = tmp_path / "fleet.yaml"
    path.write_text(f"aliases: {{smart: nobody}}\nendpoints: [{{url: '{fake_thread.url}', name: here}}]\n")
    return path


def test_check_shows_every_host(run: Run, file: Path) -> None:
    outcome = run("fleet", "check", str(file))
    assert (outcome.status, outcome.err) == (0, "")
    heads, row, *notes = outcome.out.splitlines()
    assert heads.split()[:3] == ["endpoint", "type", "state"]
    assert row.split()[:3] == ["here", "ollama", "ok"]
    assert notes == ["alias smart: no host has any of its models"]


def test_check_as_json(run: Run, file: Path) -> None:
    outcome = run("fleet", "check", str(file), "--json")
    assert outcome.status == 0
    answer = json.loads(outcome.out)
    assert answer["aliases_without_model"] == ["smart"]
    (host,) = answer["endpoints"]
    assert (host["name"], host["type"], host["ok"]) == ("here", "ollama", True)
    assert host["models"]
    assert host["round_trip_ms"] > 0


def test_a_host_that_is_down_is_status_1(run: Run, file: Path) -> None:
    file.write_text(file.read_text().replace("endpoints: [", f"endpoints: [{{url: '{GONE}', name: gone}}, "))
    outcome = run("fleet", "check", str(file))
    assert outcome.status == 1
    assert ["gone", "ollama", "failed"] in [line.split()[:3] for line in outcome.out.splitlines()]
    assert "gone: " in outcome.out
    assert [host["ok"] for host in json.loads(run("fleet", "check", str(file), "--json").out)["endpoints"]] == [
        False,
        True,
    ]


def test_a_wrong_file_is_one_line_and_status_2(run: Run, file: Path) -> None:
    file.write_text("endpoints: [{url: 'http://a', nmae: x}]")
    outcome = run("fleet", "check", str(file))
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err == (f"error: {file}:1: endpoints[#1].nmae: there is no such key; did you mean name?\n")
    assert run("fleet", "check", str(file.parent / "nowhere.yaml")).status == 2


@pytest.mark.parametrize(("engine", "told"), [("auto", True), ("on", True), ("off", False)])
def test_where_no_server_is_named_and_none_answers_the_engine_is_told_of(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, told: bool
) -> None:
    monkeypatch.setenv("ARENA_DATA", str(tmp_path))
    monkeypatch.setenv("ARENA_ENGINE", engine)
    monkeypatch.setattr("arena.settings.OLLAMA_DEFAULT", GONE)
    outcome = run("fleet", "check")
    assert (outcome.status, "`serve` starts the embedded engine" in outcome.out) == (1, told)


def test_without_a_file_the_fleet_of_the_settings_is_checked(
    run: Run, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARENA_DATA", str(file.parent))
    assert "here" in run("fleet", "check").out
    monkeypatch.setenv("ARENA_FLEET", str(file.rename(file.with_name("other.yaml"))))
    assert "here" in run("fleet", "check").out


def test_without_any_endpoint_the_local_ollama_is_checked(
    run: Run, file: Path, fake_thread: RunningFake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARENA_DATA", str(file.parent / "empty"))
    monkeypatch.setattr("arena.settings.OLLAMA_DEFAULT", fake_thread.url)
    assert run("fleet", "check").out.splitlines()[1].split()[:3] == ["ollama", "ollama", "ok"]


def test_import_prints_a_fleet_file(run: Run, file: Path, tmp_path: Path) -> None:
    olla = tmp_path / "olla.yaml"
    url = file.read_text().partition("'")[2].partition("'")[0]
    olla.write_text(f"discovery: {{static: {{endpoints: [{{url: '{url}', name: moved, type: ollama}}]}}}}\n")
    outcome = run("fleet", "import", str(olla))
    assert (outcome.status, outcome.err) == (0, "")
    file.write_text(outcome.out)
    assert "moved" in run("fleet", "check", str(file)).out


@pytest.mark.parametrize("command", [str(command.name or "check") for command in app.registered_commands])
def test_help_has_examples(run: Run, command: str) -> None:
    outcome = run("fleet", command, "--help")
    assert outcome.status == 0
    assert "Examples" in outcome.out
