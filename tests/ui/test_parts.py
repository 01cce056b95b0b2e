"""The page's own HTML: states, figures, flags, bars and notices, with every word from outside escaped."""

from __future__ import annotations

import re

import msgspec
import pytest

from arena.types import Metrics, ModelInfo, PullJob
from arena.ui import parts
from arena.ui.remedies import REMEDIES, remedy
from arena.ui.sessions import Turn
from tests.ui.pieces import EVIL, FULL, failed, turn


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, parts.DASH), (0, parts.DASH), (999, "999 B"), (1500, "2 kB"), (98_700_000, "99 MB"),
     (4_700_000_000, "4.7 GB"), (2_000_000_000_000, "2000 GB")],
)  # fmt: skip
def test_sizes(count: int | None, text: str) -> None:
    assert parts.size(count) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.123, "0.12 s"), (12.34, "12.3 s"), (110.0, "110 s"), (130.0, "2 min 10 s")]
)
def test_seconds(value: float, text: str) -> None:
    assert parts.seconds(value) == text
    assert parts.seconds(None) == parts.DASH


@pytest.mark.parametrize(
    ("one", "state", "says"),
    [
        (None, "empty", "Nothing asked yet"),
        (turn(started_s=None), "queued", "queued"),
        (turn(started_s=None, waits_for="B"), "queued", "queued, after B"),
        (turn(), "reading", "reading the prompt"),
        (turn(in_memory=False), "loading", "12 s"),
        (turn(in_memory=True), "reading", "12 s"),
        (turn(thinking="hm", first_s=1.5), "thinking", "2 characters"),
        (turn(text="x" * 1234, first_s=1.5), "writing", "1,234 characters"),
        (turn(text="yes", metrics=FULL), "done", "120 tokens"),
        (turn(text="ye", error=failed("stopped")), "stopped", "stopped"),
        (turn(error=failed("timeout")), "failed", "failed"),
    ],
)
def test_every_state_has_its_word(one: Turn | None, state: str, says: str) -> None:
    html = parts.status(one, 13.0)
    assert f'data-state="{state}"' in html
    assert says in html
    live = state in ("queued", "loading", "reading", "thinking", "writing")
    assert f'data-live="{str(live).lower()}"' in html


def test_a_model_that_is_quick_to_load_is_not_said_to_load() -> None:
    assert parts.state_of(turn(in_memory=False), 1.2) == "reading"


def test_silence_in_the_middle_of_an_answer_is_mentioned() -> None:
    one = turn(text="yes", first_s=1.5, heard_s=2.0)
    assert "silent" not in parts.status(one, 11.0)
    assert "silent for 11 s" in parts.status(one, 13.0)


def test_figures_are_those_of_the_server_and_thinking_has_its_own() -> None:
    html = parts.status(turn(text="yes", metrics=msgspec.structs.replace(FULL, first_visible_s=1.25)), 9.0)
    for says in ("60.0 tokens/s", "first token 0.50 s", "first word 1.25 s"):
        assert says in html
    assert "first word" not in parts.status(turn(text="yes", metrics=FULL), 9.0)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"contended": True}, "one after another"),
        ({"tokens": 3}, "too few tokens"),
        ({"tokens_per_sec": None}, "no counters"),
    ],
)
def test_a_rate_that_means_nothing_is_a_dash_that_says_why(change: dict[str, object], why: str) -> None:
    metrics = msgspec.structs.replace(FULL, rate_reliable=False, **change)
    html = parts.status(turn(metrics=metrics), 9.0)
    assert f"{parts.DASH} tokens/s" in html
    assert "60.0" not in html
    assert why in html.lower()


def test_an_answer_without_counters_shows_none() -> None:
    html = parts.status(turn(metrics=Metrics(total_s=1.0)), 9.0)
    assert "token" not in html
    assert 'class="bar"' not in html


def test_one_token_is_one_token() -> None:
    assert "1 token<" in parts.status(turn(metrics=msgspec.structs.replace(FULL, tokens=1)), 9.0)


def test_flags() -> None:
    metrics = msgspec.structs.replace(FULL, contended=True, prompt_cached=True, cut_by_limit=True)
    html = parts.status(turn(metrics=metrics), 9.0)
    assert re.findall(r'class="flag"[^>]*>([^<]+)<', html) == ["shared", "cached prompt", "cut by limit"]
    assert 'class="flag"' not in parts.status(turn(metrics=FULL), 9.0)


def widths(html: str) -> dict[str, float]:
    return {kind: float(grow) for kind, grow in re.findall(r'<i class="(\w+)" style="flex-grow:([\d.]+)"', html)}


def test_the_bar_shows_where_the_time_went_on_a_shared_scale() -> None:
    alone = widths(parts.time_bar(FULL))
    assert sum(alone.values()) == pytest.approx(1000, abs=0.1)
    assert alone["generation"] == pytest.approx(666.67, abs=0.1)
    shared = widths(parts.time_bar(FULL, 6.0))
    assert shared["rest"] == pytest.approx(500, abs=0.1)
    assert shared["load"] == pytest.approx(alone["load"] / 2, abs=0.1)
    assert parts.time_bar(Metrics()) == ""


def test_a_part_that_is_not_known_is_left_out_of_the_bar() -> None:
    html = parts.time_bar(msgspec.structs.replace(FULL, queue_s=None))
    assert set(widths(html)) == {"load", "prompt", "generation"}
    assert f"queue {parts.DASH}" in html


@pytest.mark.parametrize("code", sorted(REMEDIES))
def test_every_error_says_what_to_do(code: str) -> None:
    html = parts.notice(turn(error=failed(code)), may_pull=True)
    if code == "stopped":
        assert html == ""
        return
    assert remedy(code).headline in html
    assert f"<code>{code}</code>" in html


def test_an_error_of_an_unknown_kind_is_explained_all_the_same() -> None:
    assert remedy("upstream_eof").headline == "The answer broke off"
    assert remedy("brand_new").action == "retry"


def test_a_missing_model_can_be_pulled_where_that_is_allowed() -> None:
    missing = turn(error=failed("model_not_found"), model="absent:1b")
    assert 'data-action="pull"' in parts.notice(missing, may_pull=True)
    assert "Pull absent:1b" in parts.notice(missing, may_pull=True)
    assert "data-action" not in parts.notice(missing, may_pull=False)


def test_no_error_no_notice() -> None:
    assert parts.notice(None, may_pull=True) == parts.notice(turn(metrics=FULL), may_pull=True) == ""


def test_the_servers_own_words_are_below_the_message() -> None:
    html = parts.notice(turn(error=failed("upstream_error", "It failed.", details="CUDA error")), may_pull=True)
    assert '<pre class="details">CUDA error</pre>' in html
    same = parts.notice(turn(error=failed("upstream_error", "It failed.", details="It failed.")), may_pull=True)
    assert "<pre" not in same


def job(state: str, **more: object) -> PullJob:
    return PullJob("1", EVIL, "fake", state, **more)  # type: ignore[arg-type]


def test_a_download_is_told_to_its_end() -> None:
    half = parts.pulling(job("downloading", completed_bytes=500_000, total_bytes=1_000_000))
    assert 'value="0.5000"' in half
    assert "50 %" in half
    assert "500 kB of 1 MB" in half
    assert " value=" not in parts.progress(job("downloading", status="pulling manifest"))
    assert "is installed" in parts.pulling(job("done"))
    assert "disk full" in parts.pulling(job("failed", error="disk full"))
    assert "cancelled" in parts.pulling(job("cancelled"))


def test_nothing_from_outside_is_html() -> None:
    info = ModelInfo(EVIL, (EVIL,), parameter_size=EVIL, quantization=EVIL)
    pieces = [
        parts.notice(turn(error=failed(EVIL, EVIL, details=EVIL + "!"), model=EVIL), may_pull=True),
        parts.notice(turn(error=failed("model_not_found", EVIL), model=EVIL), may_pull=True),
        *(parts.pulling(job(state, status=EVIL, error=EVIL)) for state in ("downloading", "done", "failed")),
        parts.facts_line(info, EVIL),
        parts.examples([(EVIL, EVIL)]),
        parts.status(turn(started_s=None, waits_for=EVIL), 1.0),
    ]
    assert not [piece for piece in pieces if "<img" in piece or "x\"'" in piece]


def test_a_models_facts() -> None:
    info = ModelInfo(
        "m", size_bytes=2_000_000_000, parameter_size="3.2B", quantization="Q4_K_M", context_length=8192,
        capabilities=("completion", "tools", "thinking"), loaded_on=("fake",),
    )  # fmt: skip
    html = parts.facts_line(info, "T 0.3")
    for says in ("3.2B", "Q4_K_M", "8k context", "tools", "thinking", "T 0.3"):
        assert says in html
    assert "completion" not in html
    assert parts.picker_label(info) == "m · 2.0 GB · loaded"
    assert parts.picker_label(ModelInfo("m")) == "m"
    assert "512 context" in parts.facts_line(ModelInfo("m", context_length=512), "")
    assert "chip" not in parts.facts_line(None, "")


@pytest.mark.parametrize(
    ("info", "can"),
    [(None, "unknown"), (ModelInfo("m"), "unknown"), (ModelInfo("m", capabilities=()), "no"),
     (ModelInfo("m", capabilities=("thinking",)), "yes")],
)  # fmt: skip
def test_whether_a_model_can_think(info: ModelInfo | None, can: str) -> None:
    assert parts.can_think(info) == can
