"""What is shown: columns, figures, bars, and nothing that steers the terminal."""

from __future__ import annotations

import io
from collections.abc import Callable

import msgspec
import pytest
from rich.console import Console

from arena.cli import screen
from arena.types import (
    Delta,
    Failed,
    Finished,
    Metrics,
    PullJob,
)

RELIABLE = Metrics(
    tokens=42,
    duration_s=2.0,
    tokens_per_sec=21.0,
    rate_reliable=True,
    ttft_s=0.25,
    load_s=1.0,
    queue_s=0.5,
    prompt_s=0.1,
)


def columns(*names: str, height: int = 20, clock: Callable[[], float] = lambda: 0.0) -> tuple[screen.Columns, Console]:
    console = Console(file=io.StringIO(), width=80, height=height, force_terminal=True, color_system=None)
    return screen.Columns(names, console, clock), console


def drawn(view: screen.Columns, console: Console) -> str:
    with console.capture() as capture:
        console.print(view)
    return capture.get()


def test_columns_stand_side_by_side_and_count_the_seconds_of_waiting() -> None:
    now_s = 0.0
    view, console = columns("left", "right", clock=lambda: now_s)
    view.apply([Delta("left", "Hello there.")])
    now_s = 12.0
    picture = drawn(view, console)
    assert any("left" in line and "right" in line for line in picture.splitlines())
    assert "Hello there." in picture
    assert "answering" in picture
    assert "waiting 12 s" in picture


def test_columns_show_the_tail_while_they_grow_and_all_at_the_end() -> None:
    view, console = columns("a", height=12)
    view.apply([Delta("a", "\n".join(f"line {number:02}" for number in range(40)))])
    growing = drawn(view, console)
    assert "line 39" in growing
    assert "line 00" not in growing
    assert len(growing.splitlines()) <= 12
    view.apply([Finished("a", RELIABLE)])
    ended = drawn(view, console)
    assert "line 00" in ended
    assert "21.0 tokens/s" in ended


def test_columns_thinking_stands_before_the_answer() -> None:
    view, console = columns("a")
    view.apply([Delta("a", "", "Let me see."), Delta("a", "Four.")])
    assert drawn(view, console).index("Let me see.") < drawn(view, console).index("Four.")


def test_columns_live_draws_in_place() -> None:
    view, console = columns("a")
    with view.live():
        view.apply([Delta("a", "Hi."), Finished("a", RELIABLE)])
    assert isinstance(console.file, io.StringIO)
    assert "Hi." in console.file.getvalue()


def test_model_output_cannot_steer_the_terminal() -> None:
    view, console = columns("a")
    view.apply([Delta("a", "\x1b]0;owned\x07\x1b[2J[red]plain[/red]\x9b31m", "\x1b[H")])
    view.apply([Failed("a", "upstream_error", "\x1b[2Jbad")])
    picture = drawn(view, console)
    assert "[red]plain[/red]" in picture
    assert not {char for char in picture if ord(char) < 32 and char != "\n"}
    assert "\x9b" not in picture


@pytest.mark.parametrize(
    ("metrics", "line"),
    [
        (
            RELIABLE,
            "42 tokens · 21.0 tokens/s · first token 0.25 s · queue 0.50 / load 1.00 / prompt 0.10 / generation 2.00 s",
        ),
        (Metrics(tokens=3, tokens_per_sec=900.0), "3 tokens · ? tokens/s · first token ?"),
        (
            Metrics(contended=True, prompt_cached=True, cut_by_limit=True),
            "? tokens · ? tokens/s · first token ? · shared its endpoint · prompt cached · cut by limit",
        ),
    ],
)
def test_metrics_line_shows_a_dash_for_what_is_not_reliable(metrics: Metrics, line: str) -> None:
    assert screen.metrics_line(metrics) == line.replace("?", screen.UNKNOWN)


def test_view_fits_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(screen.view_for(["a"], as_json=True), screen.JsonLines)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert isinstance(screen.view_for(["a"], as_json=False), screen.Columns)
    monkeypatch.delenv("FORCE_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(screen.view_for(["a"], as_json=False), screen.Plain)


def test_download_bar_stops_with_the_job() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    job = PullJob("1", "tiny", "fake", "downloading", "pulling", 50, 100)
    with screen.DownloadBar(console) as show:
        show(job)
        show(msgspec.structs.replace(job, state="failed", error="[disk] full"))
    assert isinstance(console.file, io.StringIO)
    assert "[disk] full" in console.file.getvalue()


def test_download_in_a_log_is_a_line_for_each_tenth() -> None:
    err = io.StringIO()
    job = PullJob("1", "tiny", "fake", "downloading")
    with screen.DownloadLines(err) as show:
        show(job)
        show(msgspec.structs.replace(job, status="pulling\x1b"))
        for done in range(0, 201, 5):
            show(msgspec.structs.replace(job, status="pulling", total_bytes=200, completed_bytes=done))
        show(msgspec.structs.replace(job, state="failed", error="disk full"))
    lines = err.getvalue().splitlines()
    assert lines[:2] == ["tiny: downloading", "tiny: pulling\ufffd"]
    assert lines[2:-1] == [f"tiny: pulling {percent} %" for percent in range(0, 101, 10)]
    assert lines[-1] == "tiny: disk full"


def test_download_view_fits_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(screen.download_view(), screen.DownloadLines)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert isinstance(screen.download_view(), screen.DownloadBar)
