"""The commands about what visitors keep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from arena.store import Document, Store
from arena.store.shelf import Room, save
from tests.cli.running import Run


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder the settings name, where ann keeps two things and ben one."""
    monkeypatch.setenv("ARENA_DATA", str(tmp_path))
    store = Store(f"sqlite:///{tmp_path / 'arena.sqlite3'}")
    for document in (
        Document("preset", "ann", "[b]mine", "2026-01-01T10:00:00.000+00:00", "[b]mine", {}, "net"),
        Document("conversation", "ann", "00ff", "2026-01-02T10:00:00.000+00:00", "Why is the sky blue?", [1], "net"),
        Document("preset", "ben", "p", "2026-01-03T10:00:00.000+00:00", "p", {"secret": "words"}),
    ):
        save(store, document, Room(9))
    store.close()
    return tmp_path


def test_the_list_tells_whose_it_is_and_not_what_is_in_it(run: Run) -> None:
    told = run("kept", "list")
    assert told.status == 0
    for words in ("ann", "net", "conversation", "2026-01-02T10:00", "00ff", "Why is the sky blue?", "[b]mine"):
        assert words in told.out
    assert "words" not in told.out
    found = json.loads(run("kept", "list", "--json").out)
    assert [each["id"] for each in found] == ["p", "00ff", "[b]mine"]
    assert found[0] == {
        "owner": "ben", "network": "", "kind": "preset", "id": "p", "at": "2026-01-03T10:00:00.000+00:00",
        "characters": len('{"secret":"words"}'), "title": "p",
    }  # fmt: skip
    assert [each["id"] for each in json.loads(run("kept", "list", "net", "--json").out)] == ["00ff", "[b]mine"]


@pytest.mark.parametrize("terminal", [True, False])
def test_what_delete_takes_is_listed_whole(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch, *, terminal: bool
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    if terminal:
        monkeypatch.setenv("TTY_COMPATIBLE", "1")
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setenv("TERM", "dumb")
    owner, conversation_id = "0123456789abcdef", "fedcba98765432100123456789abcdef"
    store = Store(f"sqlite:///{data / 'arena.sqlite3'}")
    at = "2026-01-04T10:00:00.000+00:00"
    save(store, Document("conversation", owner, conversation_id, at, "w" * 80, {}, "aaaabbbbccccdddd"), Room(9))
    store.close()
    lines = run("kept", "list", owner).out.splitlines()
    assert (max(map(len, lines)) <= 80) == terminal
    cells = [line.split("│")[1:-1] for line in lines if line.startswith("│")]
    columns = ["".join(part.strip() for part in column) for column in zip(*cells, strict=True)]
    assert (columns[0], columns[5]) == (owner, conversation_id)
    assert terminal or len(cells) == 1


def test_single_ones_or_all_of_one_are_deleted(run: Run) -> None:
    assert run("kept", "delete", "ann", "00ff").out == "Deleted 1 of what ann kept.\n"
    assert run("kept", "delete", "ben", "--all").out == "Deleted 1 of what ben kept.\n"
    assert [each["id"] for each in json.loads(run("kept", "list", "--json").out)] == ["[b]mine"]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["ann"], 2, "Give the ids"),
        (["ann", "00ff", "--all"], 2, "Give the ids"),
        (["", "--all"], 2, "Give the ids"),
        (["cem", "--all"], 1, "Nothing like that is kept by cem"),
        (["ben", "00ff"], 1, "Nothing like that is kept by ben"),
        (["ann", "00ff", "--data", "/nowhere"], 1, "There is no store yet"),
    ],
)
def test_mistakes_are_told_and_delete_nothing(run: Run, words: list[str], status: int, said: str) -> None:
    outcome = run("kept", "delete", *words)
    assert (outcome.status, outcome.out) == (status, "")
    assert said in outcome.err
    assert len(json.loads(run("kept", "list", "--json").out)) == 3
