"""Votes from files of other programs: what they mean, what is refused and where, and that nothing comes twice."""

from __future__ import annotations

import codecs
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from arena.errors import BadRequest
from arena.leaderboard import Format, Imported, Leaderboard, View, import_votes, preferences, votes_jsonl
from arena.store import Side, Store, StoredBattle
from arena.types import Configuration, Style, Vote

AT = "2026-03-01T12:00:00.000+00:00"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'votes.sqlite3'}")
    yield store
    store.close()


def vote(number: int, verdict: Any = "a", **more: Any) -> Vote:
    return Vote(f"b{number}", AT, "x-1", "y-1", "x", "y", verdict, **{"voter": f"v{number % 3}", **more})


def taken(store: Store, content: Any, **more: Any) -> Imported:
    """Import a document, or lines of JSON where `content` is bytes."""
    text = content if isinstance(content, bytes) else json.dumps(content, indent=1).encode()
    return import_votes(store, io.BytesIO(text), **more)


def lines(*rows: dict[str, Any]) -> bytes:
    return b"\n".join(json.dumps(row).encode() for row in rows)


def kept(store: Store) -> list[Vote]:
    return [each for _, each in store.votes()]


# ---- our own exports


def test_an_imported_vote_about_a_side_that_the_battle_did_not_have_spoils_no_export(store: Store) -> None:
    sides = {letter: Side(Configuration(f"{letter}-1", letter), (letter,), ({},), ({},)) for letter in "ab"}
    store.add_vote(vote(1), StoredBattle("b1", AT, "installed", ("Hello!",), sides))
    other = json.loads(next(votes_jsonl(store))) | {"pair": "cd", "sides": 4, "judge": "eve", "tags": ""}
    assert taken(store, lines(other)) == Imported("arena", 1, 0)
    exported = [json.loads(line) for line in b"".join(votes_jsonl(store)).splitlines()]
    assert ["conversation_a" in each for each in exported] == [True, False]
    assert len(b"".join(preferences(store)).splitlines()) == 1


def test_who_came_by_name_alone_is_completed_by_a_battle_here(store: Store) -> None:
    fought = [Configuration(f"{name}-1", name, "d1gest", {"seed": 1}, "gpu", f"{name}, seed 1") for name in "xy"]
    sides = {letter: Side(each, ("Hi",), ({},), ({},)) for letter, each in zip("ab", fought, strict=True)}
    store.add_votes([vote(1)], [Configuration("x-1", "x"), Configuration("y-1", "y")])
    store.add_vote(vote(2), StoredBattle("b2", AT, "installed", ("Hello!",), sides))
    assert list(store.configurations().values()) == fought
    store.add_votes([vote(3)], [Configuration("x-1", "x"), Configuration("y-1", "y", "other")])
    assert list(store.configurations().values()) == fought


def test_what_is_exported_can_be_imported(store: Store, tmp_path: Path) -> None:
    verdicts: tuple[Any, ...] = ("a", "b", "tie", "both_bad")
    votes = [vote(n, verdicts[n % 4], style_a=Style(5, n, 1, 2), style_b=Style(9)) for n in range(8)]
    ranked = [vote(9, pair=pair, sides=3, category="coding", tags=("go",), dwell_s=2.5) for pair in ("ab", "ac", "bc")]
    store.add_votes([*votes, vote(8, blind=False, rated=False, turns=3), *ranked])
    exported = b"".join(votes_jsonl(store))
    other = Store(f"sqlite:///{tmp_path / 'other.sqlite3'}")
    assert taken(other, exported) == Imported("arena", 12, 0)
    assert taken(other, exported + b"\n \n") == Imported("arena", 0, 12)
    assert [(each.source, each.battle_id) for each in kept(other)] == [
        ("arena", each.battle_id) for each in kept(store)
    ]
    for one, again in zip(kept(store), kept(other), strict=True):
        assert again.pair == one.pair
        for field in Vote.__struct_fields__:
            if field != "source":
                assert getattr(again, field) == getattr(one, field), field
    assert {each.model for each in other.configurations().values()} == {"x", "y"}
    assert taken(store, exported) == Imported("arena", 0, 12), "at home nothing is new"
    other.close()


# ---- LMArena


OLDER: dict[str, Any] = {
    "question_id": "q1",
    "model_a": "m",
    "model_b": "n",
    "winner": "tie (bothbad)",
    "tstamp": 1690000000.5,
}
NEWER: dict[str, Any] = {
    "id": "q2",
    "model_a": "m",
    "model_b": "n",
    "winner": "both_bad",
    "timestamp": "2025-07-01T08:00:00",
}


@pytest.mark.parametrize("as_lines", [True, False])
def test_both_published_forms_are_read(store: Store, as_lines: bool) -> None:
    counted = {"sum_assistant_a_tokens": 7, "header_count_a": {"h1": 1, "h2": 2}, "sum_assistant_b_tokens": 8}
    rows = [
        OLDER | {"conv_metadata": counted},
        NEWER | {"evaluation_session_id": "s", "anony": False},
        NEWER | {"id": None, "judge": 7},
    ]
    assert taken(store, lines(*rows) if as_lines else rows, rated=False) == Imported("lmarena", 3, 0)
    first, second, third = kept(store)
    assert (first.verdict, first.style_a, first.at) == ("both_bad", Style(7, 3), "2023-07-22T04:26:40.500+00:00")
    assert (second.voter, second.at, second.rated) == ("s", "2025-07-01T08:00:00.000+00:00", False)
    assert (first.blind, second.blind, third.voter, first.battle_id) == (True, False, "7", "lmarena:q1")
    assert len(third.battle_id) > 32
    assert {each.source for each in kept(store)} == {"lmarena"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_a": ""}, "model_a must be the name of a model"),
        ({"model_b": "x\n"}, "model_b must be the name"),
        ({"winner": "model_c"}, "winner must be one of model_a"),
        ({"winner": ["tie"]}, "winner must be one of"),
        ({"tstamp": "soon"}, "tstamp must be seconds since 1970"),
        ({"tstamp": None}, "tstamp must be"),
        ({"tstamp": 1e300}, "tstamp must be"),
        ({"judge": "\0"}, "judge must be a text"),
        ({"question_id": ["q"]}, "question_id must be"),
        ({"turn": 10**12}, "turn must be a whole number"),
        ({"turn": True}, "turn must be"),
        ({"pair": "abc", "configuration_a": "c"}, "pair must be the letters"),
        ({"pair": "ba", "sides": 2, "configuration_a": "c"}, "pair must be the letters"),
        ({"pair": "aa", "sides": 2, "configuration_a": "c"}, "pair must be the letters"),
        ({"pair": ["a", "b"], "sides": 2, "configuration_a": "c"}, "pair must be the letters"),
        ({"pair": "ab", "sides": 2, "configuration_a": "c", "dwell_s": 10**400}, "dwell_s must be a number"),
        ({"sum_assistant_a_tokens": 1e300}, "sum_assistant_a_tokens must be a count from 0 to"),
        ({"sum_assistant_a_tokens": 1, "bold_count_a": {"**": 10**30}}, "bold_count_a must be a count"),
        ({"conv_metadata": {"sum_assistant_b_tokens": -1}}, "sum_assistant_b_tokens must be a count"),
        ({"pair": "ab", "sides": 1, "configuration_a": "c"}, "sides must be a whole number from 2"),
        ({"pair": "ab", "sides": 2, "configuration_a": "c", "dwell_s": "x"}, "dwell_s must be a number"),
        ({"pair": "ab", "sides": 2, "configuration_a": ""}, "configuration_a must be"),
        ({"pair": "ab", "sides": 2, "configuration_a": "c", "category": "x" * 41}, "category must be"),
    ],
)
def test_a_wrong_row_is_named_and_nothing_is_kept(store: Store, change: dict[str, Any], said: str) -> None:
    rows = [OLDER, OLDER | change]
    for content, place in ((lines(*rows), "line 2: "), (rows, r"\[1\]: ")):
        with pytest.raises(BadRequest, match=place + said):
            taken(store, content)
    assert not store.exists, "nothing was begun"


def test_what_is_no_json_is_refused(store: Store) -> None:
    for content in (b"", b" \n"):
        with pytest.raises(BadRequest, match=r"^the file is empty$"):
            taken(store, content)
    for content in (b"{", b"\xff\xfe", b"[1", b"[" * 100_000):
        with pytest.raises(BadRequest, match="not JSON"):
            taken(store, content)
    for rest in (b"{", b"[1]", b'"a'):
        with pytest.raises(BadRequest, match=r"^line 3 is not a JSON object$"):
            taken(store, lines(OLDER) + b"\n\n" + rest)
    with pytest.raises(BadRequest, match=r"\[1\] must be an object"):
        taken(store, [OLDER, 7])
    with pytest.raises(BadRequest, match="none of the formats arena, lmarena, local-llm-arena, llm-comparator"):
        taken(store, {"history": []})


@pytest.mark.parametrize(
    ("half", "said"),
    [
        (b"caf\xc3", r"is not UTF-8: byte 0xc3 at its position {}"),
        (b"caf\xe9!", r"is not UTF-8: byte 0xe9 at its position {}"),
        (b"\\\\caf\\ud83d", r"has half a character: .*U\+D800 to U\+DFFF"),
        (b"\\ud83d\\ude00\\uDE00", r"has half a character"),
    ],
)
def test_half_a_character_is_told_with_its_line(store: Store, half: bytes, said: str) -> None:
    good, bad = lines(OLDER), lines(OLDER | {"judge": "HERE"}).replace(b"HERE", half)
    place = bad.find(b"\xc3" if b"\xc3" in bad else b"\xe9") + 1
    for content, line in (
        (good + b"\n\n" + bad, 3),
        (bad, 1),
        (b"\n" + bad + b"\n" + good, 2),
        (b"[\n" + good + b",\n" + bad + b"\n]", 3),
    ):
        with pytest.raises(BadRequest, match=rf"^line {line} {said.format(place)}"):
            taken(store, content)
    assert not store.exists


def test_a_whole_character_is_no_half(store: Store) -> None:
    for escaped in (b"\\ud83d\\ude00", b"\\\\ud83d", "\U0001f600".encode()):
        bad = lines(OLDER | {"judge": "HERE"}).replace(b"HERE", escaped)
        with pytest.raises(BadRequest, match=r"^line 2 is not a JSON object$"):
            taken(store, lines(OLDER) + b"\n" + bad + b"x")


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (gzip.compress(b"{}", mtime=0), "compressed with gzip: unpack it"),
        (b"PK\x03\x04", "ZIP"),
        (b"PAR1", "Parquet"),
        ("{}".encode("utf-16"), "UTF-16, not JSON in UTF-8"),
        (b"SQLite format 3\0", "binary, not JSON"),
    ],
)
def test_what_is_no_text_is_told_what_it_is(store: Store, start: bytes, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        taken(store, start)
    assert not store.exists


def test_a_mark_of_the_byte_order_is_no_part_of_the_file(store: Store) -> None:
    for content in (lines(OLDER), json.dumps([OLDER]).encode(), json.dumps(compared({})).encode()):
        marked = taken(store, codecs.BOM_UTF8 + content)
        plain = taken(store, content)
        assert (plain.new, plain.format) == (0, marked.format)
        assert plain.known == marked.new + marked.known > 0


def test_what_is_too_much_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arena.leaderboard.imports.MOST_VOTES", 2)
    with pytest.raises(BadRequest, match="split the file"):
        taken(store, [OLDER] * 3)
    monkeypatch.setattr("arena.leaderboard.imports.MOST_LINE_BYTES", 150)
    with pytest.raises(BadRequest, match="line 2 is longer than 150 bytes"):
        taken(store, lines(OLDER, OLDER | {"more": "x" * 150}))
    monkeypatch.setattr("arena.leaderboard.imports.MOST_DOCUMENT_BYTES", 100)
    with pytest.raises(BadRequest, match="convert it to JSON lines"):
        taken(store, [OLDER])


def test_many_votes_come_a_batch_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arena.leaderboard.imports._BATCH", 3)
    rows = [OLDER | {"question_id": f"q{n % 8}", "judge": "j"} for n in range(10)]
    assert taken(store, lines(*rows[:5])) == Imported("lmarena", 5, 0)
    assert taken(store, lines(*rows)) == Imported("lmarena", 3, 7)
    assert [each.battle_id for each in kept(store)] == [f"lmarena:q{n}" for n in range(8)]


def test_a_file_of_another_format_than_told_is_refused(store: Store) -> None:
    wanted: Format = "llm-comparator"
    for content in (lines(OLDER), [OLDER], session_4()):
        with pytest.raises(BadRequest, match="not llm-comparator"):
            taken(store, content, wanted=wanted)


@pytest.mark.parametrize("rated", [0, "false", None])
def test_what_is_not_plainly_rated_does_not_count(store: Store, rated: object) -> None:
    assert taken(store, [NEWER | {"rated": rated}]) == Imported("lmarena", 1, 0)
    assert not kept(store)[0].rated


# ---- LLM Comparator


def compared(*examples: dict[str, Any], **more: Any) -> dict[str, Any]:
    plain = {"input_text": "Hi?", "tags": ["chat", 3], "output_text_a": "# Hi", "output_text_b": "Hello", "score": 0.5}
    return {
        "metadata": {"source_path": "run 7", "custom_fields_schema": []},
        "models": [{"name": "ABC v0.6"}, {"name": "ABC v0.5"}],
        "examples": [plain | each for each in examples],
        **more,
    }


@pytest.mark.parametrize("path", ["a\0b", ["a"], {}])
def test_a_judge_is_named_by_a_text(store: Store, path: object) -> None:
    with pytest.raises(BadRequest, match=r"metadata\.source_path must be a text"):
        taken(store, compared({}, metadata={"source_path": path}))


def test_scores_become_verdicts_and_are_not_blind(store: Store) -> None:
    scores = (1.5, 0.26, 0.25, 0, -0.25, -0.5)
    file = compared(*({"score": score, "input_text": f"{score}?"} for score in scores), {"score": None})
    assert taken(store, file) == Imported("llm-comparator", 6, 0)
    assert taken(store, file) == Imported("llm-comparator", 0, 6)
    votes = kept(store)
    assert [each.verdict for each in votes] == ["a", "a", "tie", "tie", "tie", "b"]
    one = votes[0]
    assert (one.model_a, one.model_b, one.voter, one.tags) == (
        "ABC v0.6",
        "ABC v0.5",
        "llm-comparator: run 7",
        ("chat",),
    )
    assert (one.blind, one.rated, one.source, one.style_a) == (False, True, "llm-comparator", Style(2, headers=1))
    assert Leaderboard(store).board().votes == 0
    assert Leaderboard(store).board(View(blind=False)).votes == 6


def test_pieces_of_a_prompt_are_put_together(store: Store) -> None:
    pieces = [{"type": "text", "data": "a"}, {"type": "image_byte", "data": "AAAA"}, {"data": "b"}]
    assert taken(store, compared({"output_text_a": pieces})).new == 1
    (one,) = kept(store)
    assert one.style_a == Style(1)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (compared(models=[{"name": "m"}]), "models must be two models"),
        (compared(models=[{"name": "m"}, {}]), r"models\[1\].name must be the name"),
        (compared(models=3), "models must be a list"),
        (compared(metadata=3), "metadata must be an object"),
        (compared(examples=["x"]), r"examples\[0\] must be an object"),
        (compared({"score": "1"}), r"examples\[0\].score must be a number"),
        (compared({}, {"output_text_b": 3}), r"examples\[1\].output_text_b must be a list"),
        (compared({"input_text": [{"data": 3}]}), r"examples\[0\].input_text\[0\].data must be a text"),
    ],
)
def test_what_is_wrong_in_a_comparison_is_named(store: Store, file: Any, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        taken(store, file)
    assert not store.exists, "nothing was begun"


# ---- Local LLM Arena


def session_4(*votes: dict[str, int], **more: Any) -> dict[str, Any]:
    """A session of version 4: for each turn the thumbs by model, where 0 is none."""
    names = sorted({name for turn in votes for name in turn})
    heat = {"temperature": 0.2, "top_p": 0.9, "top_k": 40, "repeat_penalty": 1.1, "num_predict": -1, "seed": 0}
    return {
        "app": "Local LLM Arena",
        "exportedAt": "2026-05-01T10:00:00.000Z",
        "blind": {"enabled": True, "revealed": True},
        "system": "",
        "models": [{"id": f"{name}__0.2", "model": name, "hyperparameters": heat} for name in names],
        "turns": [
            {
                "prompt": f"{place}?",
                "responses": [
                    {"model": f"{name}__0.2", "text": f"**{name}**", "metrics": {}, "vote": thumb}
                    for name, thumb in turn.items()
                ],
            }
            for place, turn in enumerate(votes)
        ],
        **more,
    }


def test_thumbs_of_a_session_become_verdicts(store: Store) -> None:
    file = session_4(
        {"m": 1, "n": -1}, {"m": 1, "n": 1}, {"m": -1, "n": -1}, {"m": 1, "n": 0}, {"k": 1, "m": -1, "n": 1}
    )
    assert taken(store, file) == Imported("local-llm-arena", 6, 0)
    assert taken(store, file).known == 6
    votes = kept(store)
    assert [(each.model_a, each.model_b, each.verdict, each.sides) for each in votes] == [
        ("m", "n", "a", 2), ("m", "n", "tie", 2), ("m", "n", "both_bad", 2),
        ("k", "m", "a", 3), ("k", "n", "tie", 3), ("m", "n", "b", 3),
    ]  # fmt: skip
    assert {(each.blind, each.source, each.at) for each in votes} == {
        (True, "local-llm-arena", "2026-05-01T10:00:00.000+00:00")
    }
    assert votes[0].style_a == Style(5, bold=1)
    told = store.configurations()[votes[0].configuration_a]
    assert (told.model, told.options["temperature"]) == ("m", 0.2)
    assert told.label.startswith("m, num_predict -1, repeat_penalty 1.1")


def test_thumbs_of_an_open_session_are_not_blind(store: Store) -> None:
    taken(store, session_4({"m": 1, "n": -1}, blind={"enabled": False, "revealed": False}))
    assert [each.blind for each in kept(store)] == [False]


def session_3(votes: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A revealed session of version 3."""
    return {
        "title": "chat",
        "history": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "# 1", "model": "m", "instance_id": "m__1"},
            {"role": "assistant", "content": "one", "model": "n"},
            {"role": "user", "content": "Two?"},
            {"role": "assistant", "content": "2", "model": "m", "instance_id": "m__1"},
        ],
        "modelInstances": [{"id": "m__1", "model": "m", "temperature": 0.3, "top_k": None}],
        "exportedAt": "2026-01-05T10:00:00.000Z",
        "blindMode": {
            "enabled": True, "revealed": True, "mapping": {"m__1": "Model A", "n": "Model B", "o": "Model C"},
            "votes": votes,
        },
        **more,
    }  # fmt: skip


def thumb(label: str, up: str | None, at_ms: int = 0) -> dict[str, Any]:
    return {"messageId": "msg-1", "blindLabel": label, "vote": up, "timestamp": at_ms}


def test_thumbs_of_an_older_session_are_one_comparison(store: Store) -> None:
    votes = {
        "1": thumb("Model A", "up", 1767600000000), "2": thumb("Model A", "up"), "3": thumb("Model B", "up"),
        "4": thumb("Model B", "down"), "5": thumb("Model C", None),
    }  # fmt: skip
    assert taken(store, session_3(votes)) == Imported("local-llm-arena", 1, 0)
    (one,) = kept(store)
    assert (one.model_a, one.model_b, one.verdict, one.turns, one.blind) == ("m", "n", "a", 2, True)
    assert (one.at, one.style_a, one.style_b) == ("2026-01-05T08:00:00.000+00:00", Style(3, headers=1), Style(1))
    assert store.configurations()[one.configuration_a].options == {"temperature": 0.3}
    never = session_3({})
    del never["blindMode"]
    assert taken(store, never).new == 0


def judged_benchmark(**change: Any) -> dict[str, Any]:
    verdicts = [{"label": "A", "score": 7, "reason": ""}, {"label": "B", "score": 9.5}, {"label": "C", "score": 7}]
    result = {
        "prompt": "Hi?",
        "answers": {name: {"model": name, "text": name} for name in "xyz"},
        "mapping": {"A": "x", "B": "y", "C": "z"},
        "verdicts": verdicts,
        "winner": "B",
        **change,
    }
    results = [result, {"prompt": "?", "answers": {}, "judgeError": "no"}]
    return {"app": "Local LLM Arena", "kind": "benchmark", "generatedAt": "2026-05-01T10:00:00Z", "results": results}


def test_a_judged_benchmark_is_one_judge(store: Store) -> None:
    assert taken(store, judged_benchmark()).new == 3
    assert [(each.model_a, each.model_b, each.verdict) for each in kept(store)] == [
        ("x", "y", "b"),
        ("x", "z", "tie"),
        ("y", "z", "a"),
    ]
    assert {(each.blind, each.voter) for each in kept(store)} == {(False, "local-llm-arena: judge")}


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (session_4({"m": 1}, blind={"enabled": True, "revealed": False}), "masked: reveal them"),
        (session_3({}, blindMode={"enabled": True, "revealed": False}), "masked: reveal them"),
        (session_4({"m": 1}, exportedAt="then"), "exportedAt must be"),
        (session_4({"m": 1}, turns=[{"prompt": 3}]), r"turns\[0\].prompt must be a text"),
        (
            session_4(turns=[{"prompt": "", "responses": [{}] * 27}]),
            r"turns\[0\].responses must be a list of at most 26",
        ),
        (session_4(turns=[{"prompt": "", "responses": [{"vote": "up"}]}]), r"turns\[0\].responses\[0\].vote must be"),
        (session_4(turns=[{"prompt": "", "responses": [{"vote": 1}]}]), r"turns\[0\].responses\[0\].model must be"),
        (session_4(models=[{"model": "m"}]), r"models\[0\].id must be"),
        (session_4(models=[{"id": "m", "model": "m", "hyperparameters": [1]}]), r"models\[0\].hyperparameters must be"),
        (session_3({"k": {"vote": ["up"], "blindLabel": "Model A"}}), "blindMode.votes.k.vote must be up or down"),
        (session_3({}, blindMode={"revealed": True, "mapping": {"m": ["A"]}}), "blindMode.mapping.m must be a text"),
        (session_3({"k": thumb("Model A", "left")}), "blindMode.votes.k.vote must be up or down"),
        (session_3({"k": thumb("Model X", "up")}), "mapping tells nobody who is called 'Model X'"),
        (session_3({"k": {"vote": "up"}}), "blindMode.votes.k.blindLabel must be"),
        (session_3({"k": thumb("Model A", "up", 10**15)}), "blindMode.votes.k.timestamp must be milliseconds since"),
        (session_3({"k": thumb("Model A", "up", -1)}), "blindMode.votes.k.timestamp must be milliseconds since"),
        (session_3({}, history=[{"role": "user"}]), r"history\[0\].content must be"),
        (judged_benchmark(mapping={}), r"results\[0\].verdicts\[0\].label must be"),
        (judged_benchmark(answers=3), r"results\[0\].answers must be an object"),
    ],
)
def test_what_is_wrong_in_an_export_is_named(store: Store, file: Any, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        taken(store, file)
    assert not store.exists, "nothing was begun"


def test_a_session_with_too_many_models_is_refused(store: Store) -> None:
    labels = {f"m{n}": f"Model {n}" for n in range(30)}
    votes = {label: thumb(label, "up") for label in labels.values()}
    blind = {"enabled": True, "revealed": True, "mapping": labels, "votes": votes}
    with pytest.raises(BadRequest, match="more than 26 models"):
        taken(store, session_3({}, blindMode=blind))
