"""Line-ups: from widgets, links and the browser's memory, and back again without loss."""

from __future__ import annotations

from typing import Any, get_args
from urllib.parse import parse_qsl

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from arena.api.fields import PARAMETERS, THINK_LEVELS
from arena.types import Options
from arena.ui.drawer import THINK_CHOICES
from arena.ui.lineup import (
    DIAL,
    PRESETS,
    ColumnChoice,
    Lineup,
    ThinkChoice,
    choice_from,
    from_query,
    kept_lineup,
    kept_presets,
    picked,
    summary,
    to_query,
    widget_values,
)

FULL = ColumnChoice(
    "llama3.2:3b",
    Options(
        temperature=0.3, top_p=0.5, top_k=0, repeat_penalty=1.2, num_predict=-1, seed=7, num_ctx=4096, stop=("a", "b")
    ),
    think="high",
    endpoint="gpu1",
    system="Be brief.",
)

texts = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1, max_size=20)
choices = st.builds(
    ColumnChoice,
    model=st.sampled_from(["tiny", "llama3.2:3b", "hf.co/a/b:q4"]),
    options=st.builds(
        Options,
        temperature=st.none() | st.floats(0.01, 2),
        top_k=st.none() | st.integers(0, 100),
        seed=st.none() | st.integers(0, 2**31 - 1),
        stop=st.none() | st.lists(texts, min_size=1, max_size=3).map(tuple),
    ),
    think=st.sampled_from([None, True, False, "low", "max"]),
    system=texts | st.just(""),
)


def test_widgets_show_what_they_are_read_as() -> None:
    assert choice_from(widget_values(FULL)) == FULL
    assert choice_from(widget_values(ColumnChoice())) == ColumnChoice()


@given(choices)
def test_any_choice_survives_the_widgets(choice: ColumnChoice) -> None:
    assert choice_from(widget_values(choice)) == choice


@given(st.lists(choices, min_size=1, max_size=6).map(tuple), texts | st.just(""))
def test_any_lineup_survives_its_link(columns: tuple[ColumnChoice, ...], prompt: str) -> None:
    lineup = Lineup(columns, "shared", "one_after_another", prompt if prompt.strip() else "")
    # a blank system prompt of a column means the shared one
    columns = tuple(c if c.system.strip() else replace(c, system="") for c in columns)
    query = dict(parse_qsl(to_query(lineup).removeprefix("?"), keep_blank_values=True))
    assert from_query(query, 6) == Lineup(columns, "shared", "one_after_another", lineup.prompt)


@given(choices)
def test_any_memory_survives_the_browser(choice: ColumnChoice) -> None:
    lineup, presets = Lineup((choice,), "s"), {"mine": choice}
    assert kept_lineup(msgspec.to_builtins(lineup)) == lineup
    assert kept_presets(msgspec.to_builtins(presets)) == presets


@pytest.mark.parametrize(
    "junk", [None, 3, "x", [], {"columns": 3}, {"columns": [{"options": {"top_k": "x"}}]}, {"mine": {"think": []}}]
)
def test_a_memory_that_cannot_be_read_is_none(junk: Any) -> None:
    assert (kept_lineup(junk), kept_presets(junk)) == (Lineup(), {})


def test_a_memory_out_of_range_is_brought_into_it() -> None:
    columns = kept_lineup({"columns": [{"model": "tiny", "options": {"temperature": 99.0}}] * 20}).columns
    assert len(columns) == 12
    assert columns[0].options.temperature == 2


@pytest.mark.parametrize(
    ("name", "given_", "read"),
    [
        ("temperature", "0.2", 0.2), ("temperature", 0, 0.01), ("top_k", 40.7, 40),
        ("top_k", "x", None), ("seed", True, None),
        ("top_p", float("nan"), None), ("top_p", "inf", None), ("num_predict", -5, -1), ("seed", None, None),
    ],
)  # fmt: skip
def test_a_dial_takes_what_is_a_number_in_its_range(name: str, given_: object, read: float | None) -> None:
    assert DIAL[name].checked(given_) == read


def test_a_switch_that_is_off_leaves_the_value_to_the_model() -> None:
    values = widget_values(FULL) | {"temperature_on": False, "think": "default", "stop": ""}
    choice = choice_from(values)
    assert choice.options.temperature is None
    assert choice.options.stop is None
    assert choice.think is None


def test_an_odd_think_value_is_the_models_own() -> None:
    assert choice_from({"think": "sideways"}).think is None
    assert widget_values(ColumnChoice(think="sideways"))["think"] == "default"


def test_the_instance_takes_the_shared_system_prompt_unless_it_has_its_own() -> None:
    assert ColumnChoice("m").instance("A", "shared ").system == "shared"
    assert FULL.instance("A", "shared").system == "Be brief."
    assert ColumnChoice("m").instance("A", " ").system is None


def test_seed_zero_is_random_and_not_sent() -> None:
    assert ColumnChoice("m", Options(seed=0)).instance("A", "").options.sent() == {}
    assert ColumnChoice("m", Options(seed=1)).instance("A", "").options.sent() == {"seed": 1}


def test_the_summary_names_what_is_not_the_models_own() -> None:
    assert summary(ColumnChoice("m")) == ""
    assert summary(FULL) == (
        "on gpu1 · T 0.3 · P 0.5 · K 0 · R 1.2 · N -1 · seed 7 · ctx 4096 · stop · think high · own system prompt"
    )


def test_a_picker_may_hold_a_label() -> None:
    assert picked("llama3.2:3b  ·  2.0 GB") == ("llama3.2:3b", "")
    assert picked("llama3.2:3b on gpu1 · loaded") == ("llama3.2:3b", "gpu1")
    assert picked(None) == picked("  ") == ("", "")
    assert picked("m on") == ("m", "")


def test_the_pages_ranges_are_the_apis() -> None:
    for parameter in PARAMETERS:
        dial = DIAL[parameter.name]
        assert dial.minimum == parameter.low, parameter.name
        assert dial.maximum <= parameter.high, parameter.name
        assert dial.checked(0) != 0 or parameter.checked(0) == 0, "what the API refuses is not sent"
    assert {choice for choice in get_args(ThinkChoice) if choice not in ("default", "off", "on")} == set(THINK_LEVELS)
    assert {value for _, value in THINK_CHOICES} == set(get_args(ThinkChoice))


def test_a_column_may_keep_to_one_endpoint() -> None:
    choice = ColumnChoice("m", endpoint="gpu1")
    assert choice.instance("A", "").endpoint == "gpu1"
    assert ColumnChoice("m").instance("A", "").endpoint is None
    assert summary(choice) == "on gpu1"
    assert to_query(Lineup((choice, ColumnChoice("m")))) == "?models=m,m&endpoint_a=gpu1"


def test_a_link_without_anything_is_no_lineup() -> None:
    assert from_query({"utm": "x"}, 6) is None
    assert from_query({"prompt": "Why?"}, 6) == Lineup(prompt="Why?")


def test_a_link_names_at_most_as_many_columns_as_there_are() -> None:
    lineup = from_query({"models": "a,,b,c", "temperature": "9", "temperature_b": "oops"}, 2)
    assert lineup is not None
    assert [choice.model for choice in lineup.columns] == ["a", "b"]
    assert [choice.options.temperature for choice in lineup.columns] == [2, None]


def test_presets_are_settings_without_a_model() -> None:
    assert all(not preset.model for preset in PRESETS.values())
    assert PRESETS["Model's own"].options.sent() == {}
