"""The commands about named keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from arena.cli.keys import app
from arena.keys import Keys, read
from tests.cli.running import Run


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder the settings name."""
    monkeypatch.setenv("ARENA_DATA", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def test_add_prints_the_key_alone_and_once(run: Run, data: Path) -> None:
    words = "--scope chat --scope embed --model llama* --per-minute 60 --tokens-per-day 100000 --concurrent 4"
    outcome = run("keys", "add", "alice", *words.split())
    assert outcome.status == 0
    secret = outcome.out.strip()
    assert "shown this once" in outcome.err
    assert secret not in outcome.err
    found = Keys(data / "keys.json").find(secret.encode())
    assert found is not None
    assert (found.name, found.scopes, found.models) == ("alice", ("chat", "embed"), ("llama*",))
    assert (found.per_minute, found.tokens_per_day, found.concurrent, found.tokens_per_minute) == (60, 100_000, 4, None)
    assert secret not in run("keys", "list").out + run("keys", "show", "alice").out


def test_a_plain_key_may_chat_with_all_models(run: Run, data: Path) -> None:
    assert run("keys", "add", "bob").status == 0
    (key,) = read(data / "keys.json")
    assert (key.scopes, key.models, key.per_minute) == (("chat",), None, None)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["add", "alice"], 1, "There is a key called alice already"),
        (["add", "bob", "--scope", "root"], 2, "root is no scope"),
        (["add", "bob", "--per-minute", "-1"], 2, "--per-minute"),
        (["add", "../x"], 2, "64 letters, digits and . _ -, starting with a letter or digit\n"),
        (["add", "bob", "--model", "a b"], 2, "must be 1 to 255 characters of ASCII without blanks\n"),
        (["add"], 2, "NAME"),
        (["show", "bob"], 1, "No key is called bob"),
        (["remove", "bob"], 1, "No key is called bob"),
    ],
)
def test_mistakes_are_told(run: Run, data: Path, words: list[str], status: int, said: str) -> None:
    run("keys", "add", "alice")
    outcome = run("keys", *words)
    assert outcome.status == status
    assert said in outcome.err
    assert [key.name for key in read(data / "keys.json")] == ["alice"]


def test_a_damaged_file_is_one_line_and_status_2(run: Run, data: Path) -> None:
    (data / "keys.json").write_text("{")
    outcome = run("keys", "list")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "damaged" in outcome.err


def test_list_and_show_tell_what_has_been_used(run: Run, data: Path) -> None:
    assert "There are no keys" in run("keys", "list").out
    secret = run("keys", "add", "alice", "--model", "[a-l]*", "--per-minute", "60").out.strip()
    keys = Keys(data / "keys.json", later=lambda _delay_s, _call: None)
    key = keys.find(secret.encode())
    assert key is not None
    assert "never" in run("keys", "list").out
    keys.admit(key, "chat")
    keys.spent("alice", "llama3:latest", "gpu1", 1234)
    keys.flush()
    table = run("keys", "list").out
    for shown in ("alice", "chat", "[a-l]*", "60 requests/min", "1234"):
        assert shown in table
    shown = run("keys", "show", "alice").out
    assert "llama3:latest (answers: 1, tokens: 1234)" in shown
    listed = json.loads(run("keys", "list", "--json").out)
    assert listed == [json.loads(run("keys", "show", "alice", "--json").out)]
    assert listed[0]["used_models"] == {"llama3:latest": {"answers": 1, "tokens": 1234}}
    assert listed[0]["used_hosts"] == {"gpu1": {"answers": 1, "tokens": 1234}}
    assert (listed[0]["requests"], listed[0]["tokens_today"]) == (1, 1234)
    assert "digest" not in listed[0]


def test_remove_takes_several(run: Run, data: Path) -> None:
    for name in ("alice", "bob", "eve"):
        run("keys", "add", name, "--data", str(data))
    assert run("keys", "remove", "alice", "eve").out == "Removed alice.\nRemoved eve.\n"
    assert [key.name for key in read(data / "keys.json")] == ["bob"]


@pytest.mark.parametrize("command", [c.name or c.callback.__name__ for c in app.registered_commands if c.callback])
def test_help_has_examples(run: Run, command: str) -> None:
    outcome = run("keys", command.removesuffix("_keys"), "--help")
    assert outcome.status == 0
    assert "Examples" in outcome.out
