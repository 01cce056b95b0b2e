"""Files that somebody made to break an import: each is refused in one sentence, at once, and nothing is kept."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from arena.errors import BadRequest
from arena.leaderboard import Leaderboard, View, import_votes, imports, votes_csv, votes_jsonl
from arena.store import Store, backup

ROW = {"question_id": "q", "model_a": "a", "model_b": "b", "winner": "model_a", "judge": "j", "tstamp": 1700000000}
OWN = {"configuration_a": "c", "configuration_b": "d", "pair": "ab", "sides": 2}


def line(**more: Any) -> bytes:
    return json.dumps(ROW | more).encode() + b"\n"


def bomb() -> bytes:
    """A megabyte of nothing in a thousand bytes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("votes.jsonl", line() + b" " * 1_000_000)
    return packed.getvalue()


DEEP = b"[" * 100_000 + b"]" * 100_000

HOSTILE: dict[str, tuple[bytes, str]] = {
    "CSV": (
        b'"question_id","model_a","model_b","winner"\r\n"q","a","b","tie"\r\n',
        "the file is CSV, not JSON: export JSON",
    ),
    "an archive": (bomb(), "a ZIP archive: unpack it first"),
    "deep at once": (b'{"winner":' + DEEP + b"}\n", "maximum recursion depth"),
    "deep later": (line() + b'{"winner":' + DEEP + b"}\n", "line 2 is not a JSON object"),
    "deep and never closed": (b"[" * 1_000_000, "line 1 is no vote"),
    "one endless line": (line(note="x" * 5000), "line 1 is longer than 4,096 bytes"),
    "an endless line later": (line() + line(note="x" * 5000), "line 2 is longer than 4,096 bytes"),
    "NaN": (b'{"winner":"model_a","model_a":"a","model_b":"b","tstamp":NaN}\n', "line 1: tstamp is NaN"),
    "NaN later": (line() + b'{"note":"\\"NaN\\":", "dwell_s": -Infinity}', "line 2: dwell_s is -Infinity, which is no"),
    "NaN in a document": (b'{"app":\n"x",\n"temperature" :NaN}', "line 3: temperature is NaN, which is no JSON"),
    "no number is so large": (b'{"winner":"model_a","model_a":"a","model_b":"b","tstamp":1e999}\n', "out of range"),
    "no time is so late": (line(tstamp=10**30), "line 1: tstamp must be seconds"),
    "no time is so early": (line(tstamp="0001-01-01T00:00:00+23:59"), "line 1: tstamp must be seconds"),
    "a time before all computers": (line(tstamp="1969-12-31"), "line 1: tstamp must be seconds"),
    "a time beyond all of us": (line(tstamp="2100-01-01T00:00:00Z"), "ISO 8601, before the year 2100"),
    "milliseconds": (line(tstamp=1700000000000), "line 1: tstamp must be seconds since 1970"),
    "no time at all": (line(tstamp=True), "line 1: tstamp must be seconds"),
    "no such winner": (line(winner=["model_a"]), "line 1: winner must be one of"),
    "an id that is a list": (line(question_id=[1]), "line 1: question_id must be a text"),
    "NUL": (line(question_id="a\0b"), "line 1: question_id must be a text"),
    "words backwards": (line(model_a="a\u202eb"), "line 1: model_a must be the name"),
    "against itself": (line(**OWN | {"pair": "aa"}), "line 1: pair must be"),
    "a pair that is an object": (line(**OWN | {"pair": {}}), "line 1: pair must be"),
    "endless thought": (line(**OWN, dwell_s=1e308), "line 1: dwell_s must be a number"),
    "voted before the answers": (line(**OWN, dwell_s=-0.5), "line 1: dwell_s must be a number from 0 to 1,000,000,000"),
    "endless repeats": (line(**OWN, repeats=10**20), "line 1: repeats must be a whole number"),
    "turns that are none": (line(turn=True), "line 1: turn must be a whole number"),
    "endless style": (line(sum_assistant_a_tokens=10**30), "line 1: sum_assistant_a_tokens must be"),
    "fewer than no tokens": (line(sum_assistant_b_tokens=-1), "line 1: sum_assistant_b_tokens must be a count"),
    "fewer than no headings": (
        line(sum_assistant_a_tokens=1, header_count_a={"h1": 3, "h2": -1}),
        "line 1: header_count_a must be a count",
    ),
    "more headings than can be kept": (
        line(sum_assistant_a_tokens=1, header_count_a={"h1": 10**9, "h2": 1}),
        "line 1: header_count_a must be a count",
    ),
    "tokens that are a yes": (line(sum_assistant_a_tokens=True), "line 1: sum_assistant_a_tokens must be a count"),
    "tokens that are a text": (line(sum_assistant_a_tokens="12"), "line 1: sum_assistant_a_tokens must be a count"),
    "binary behind text": (line() + b"\0" * 2000, "binary"),
    "rows that are none": (b"[1,2]", "must be an object"),
    "rubbish at the end": (line() + b"rubbish", "line 2 is not a JSON object"),
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'votes.sqlite3'}")
    yield store
    store.close()


@pytest.mark.parametrize(("content", "said"), HOSTILE.values(), ids=HOSTILE)
def test_what_is_hostile_is_refused_whole(
    store: Store, monkeypatch: pytest.MonkeyPatch, content: bytes, said: str
) -> None:
    monkeypatch.setattr(imports, "MOST_LINE_BYTES", 4096 if "4,096" in said else 2**24)
    with pytest.raises(BadRequest) as refused:
        import_votes(store, io.BytesIO(content))
    assert said in refused.value.message
    assert refused.value.message.count("\n") == 0
    assert len(refused.value.message) < 300
    assert store.last_number() == 0


def test_what_is_odd_but_true_is_taken_once_and_comes_out_everywhere(store: Store, tmp_path: Path) -> None:
    odd = (
        line(question_id=7),
        line(question_id="same", model_b="a"),
        line(question_id="twice") * 3,
        line(question_id="changed") + line(question_id="changed", winner="model_b"),
        line(question_id="settings", **OWN | {"configuration_b": "c"}),
        line(question_id="long", note="x" * 1_000_000),
        line(question_id="ends").replace(b"\n", b"\r\n"),
        line(question_id="u", note="\u2028").replace(b"\\u2028", "\u2028".encode()),
    )
    done = [import_votes(store, io.BytesIO(content)) for content in odd]
    assert [(each.new, each.known) for each in done] == [
        (1, 0), (1, 0), (1, 2), (1, 1), (1, 0), (1, 0), (1, 0), (1, 0),
    ]  # fmt: skip
    for form in (votes_csv, votes_jsonl):
        assert b"".join(form(store)).count(b"\n") >= 8
    board = Leaderboard(store).board(View(blind=False))
    assert [(row.name, row.votes) for row in board.rows] == [("a", 7), ("b", 7)]
    assert backup(store, tmp_path / "kept") == 8
