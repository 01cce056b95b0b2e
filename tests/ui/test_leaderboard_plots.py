"""Plots: sound XML whatever the names are, to scale, and labels that do not cover each other."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from arena.ui.plots import (
    HUES,
    LINE_HEIGHT,
    Reading,
    Scale,
    Series,
    Spot,
    apart,
    axis,
    figure,
    frontier,
    interval,
    lines,
    scale,
    scatter,
    short,
    shortened,
    words,
)
from tests.ui.pieces import EVIL

DAY = date(2026, 3, 1)
LLAMA = "Meta-Llama-3.1-8B-Instruct-GGUF"


def drawn(html: str) -> ElementTree.Element:
    """The plot as XML."""
    return ElementTree.fromstring(html)


def classed(element: ElementTree.Element, kind: str) -> list[ElementTree.Element]:
    return [each for each in element.iter() if kind in each.get("class", "").split()]


def percent(element: ElementTree.Element, name: str) -> float:
    return float(element.get(name, "").removesuffix("%"))


def series(name: str, *values: float, hue: str = "a") -> Series:
    readings = (Reading(DAY + timedelta(days=at), value, value - 20, value + 40) for at, value in enumerate(values))
    return Series(name, hue, tuple(readings))


def spot(name: str, x: float, y: float, hue: str = "a", best: bool = False) -> Spot:
    return Spot(name, hue, x, x, x, y, y - 10, y + 10, f"{name} told", best)


# ---- scales


@pytest.mark.parametrize(
    ("low", "high", "most", "found"),
    [
        (590, 1210, 6, [600, 800, 1000, 1200]),
        (980, 1020, 4, [980, 990, 1000, 1010, 1020]),
        (0, 7.4, 6, [0, 2, 4, 6]),
        (44, 58, 6, [45, 47.5, 50, 52.5, 55, 57.5]),
        (-3, 3, 6, [-3, -2, -1, 0, 1, 2, 3]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, most: int, found: list[float]) -> None:
    assert Scale(low, high).ticks(most) == found


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [(0.08, 3, [0.1, 0.2, 0.5, 1, 2]), (0.5, 900, [1, 3, 10, 30, 100, 300]), (1e-3, 1e9, 13)],
)
def test_ticks_of_a_logarithmic_scale(low: float, high: float, found: list[float] | int) -> None:
    ticks = Scale(low, high, log=True).ticks()
    assert ticks == found if isinstance(found, list) else len(ticks) == found


def test_a_scale_holds_all_values_even_if_they_are_one() -> None:
    assert [scale([5.0]).low < 5 < scale([5.0]).high, scale([0.0]).low, scale([0.0]).high] == [True, -1, 1]
    wide = scale([1, 100], log=True)
    assert [wide.at(at) for at in (wide.low, 10, wide.high)] == pytest.approx([0, 50, 100])
    assert [figure(at) for at in (1200.0, 47.5, 0.1, 20.0)] == ["1200", "47.5", "0.1", "20"]


# ---- an interval


def test_an_interval_is_to_scale_and_says_what_it_is() -> None:
    bar = drawn(interval(Scale(800, 1200), 900, 1000, 1150, EVIL, mark=1100))
    (whole,), (point,), (mark,) = (classed(bar, kind) for kind in ("range", "point", "mark"))
    assert (percent(whole, "x"), percent(whole, "width"), percent(point, "cx")) == (25, 62.5, 50)
    assert percent(mark, "x1") == 75
    assert bar.findtext("title") == EVIL
    ticks = drawn(axis(Scale(800, 1200)))
    places = {text.text: percent(text, "x") for text in ticks}
    assert places == {"800": 0, "900": 25, "1000": 50, "1100": 75, "1200": 100}
    assert [percent(line, "x1") for line in classed(bar, "grid")] == list(places.values())


# ---- lines


def test_lines_are_to_scale_with_bands_dots_and_names() -> None:
    plot = drawn(lines([series("one", 1000, 1040), series(EVIL, 940, hue="")], "Over time", "Told"))
    up = scale([980, 1040, 1020, 1080, 920, 980])
    (line,), (band,) = classed(plot, "line"), classed(plot, "band")
    assert line.get("points") == f"0.00,{100 - up.at(1000):.2f} 100.00,{100 - up.at(1040):.2f}"
    assert band.get("points", "").split()[-1] == f"0.00,{100 - up.at(980):.2f}"
    ends = {text.text: float(text.get("y", "")) for text in classed(plot, "end")}
    assert set(ends) == {"one"}, "a quiet line has no name"
    (only,) = classed(plot, "error")
    assert percent(only, "y1") == pytest.approx(100 - up.at(980), abs=0.01)
    told = [circle.findtext("title") for circle in plot.iter("circle")]
    assert told == [
        f"{EVIL}, 2026-03-01: 940 (920 to 980)",
        "one, 2026-03-01: 1000 (980 to 1040)",
        "one, 2026-03-02: 1040 (1020 to 1080)",
    ]
    assert len(list(plot.iter("li"))) == 1
    assert plot.find("svg/title") is not None
    assert plot.findtext("svg/desc") == "Told"


def test_what_was_open_once_presses_nothing_together() -> None:
    early = Reading(DAY, 1010, -200, 1900)
    later = [Reading(DAY + timedelta(days=at), 1000 + at, 990, 1020) for at in range(2, 6)]
    later[2] = Reading(later[2].day, 1004, 0, 1800)
    new = Series("new", "b", (Reading(DAY + timedelta(days=1), 900, 700, 1100),))
    plot = drawn(lines([Series("one", "a", (early, *later)), new], "Over time", "Told"))
    up = scale([700, 1100])
    (line,), (band,) = classed(plot, "line"), classed(plot, "band")
    assert line.get("points", "").split()[0] == f"0.00,{100 - up.at(1010):.2f}", "all values, and where lines end"
    assert band.get("points", "").split()[0] == f"0.00,{100 - up.at(1900):.2f}", "which is above the plot"
    assert len(classed(plot, "within")) == 1


def test_a_single_day_stands_in_the_middle() -> None:
    plot = drawn(lines([series("one", 1000), series("two", 950)], "Over time", "Told"))
    assert {percent(circle, "cx") for circle in plot.iter("circle")} == {50}
    assert not classed(plot, "line")
    assert [text.text for text in classed(plot, "tick") if text.get("text-anchor") == "middle"] == ["01 Mar"]


def test_days_under_the_plot_are_few_and_in_order() -> None:
    plot = drawn(lines([series("one", *range(1000, 1060))], "Over time", "Told"))
    days = [text.text for text in classed(plot, "tick") if "Mar" in (text.text or "") or "Apr" in (text.text or "")]
    assert days == ["01 Mar", "16 Mar", "31 Mar", "14 Apr", "29 Apr"]
    assert len(list(plot.iter("circle"))) == 60


# ---- points


def test_points_are_to_scale_on_both_axes() -> None:
    plot = drawn(scatter([spot("slow", 10, 1100, best=True), spot(EVIL, 40, 900, hue="")], "T", "D", ("GB", "rating")))
    circles = classed(plot, "spot")
    up = scale([890, 910, 1090, 1110])
    assert [percent(each, "cx") for each in circles] == pytest.approx([100 * 10 / 43.2, 100 * 40 / 43.2], abs=0.01)
    assert [percent(each, "cy") for each in circles] == pytest.approx([100 - up.at(1100), 100 - up.at(900)], abs=0.01)
    assert len(classed(plot, "best")) == 1
    assert {text.text for text in classed(plot, "at")} == {"slow"}, "a quiet point has its name when pointed at"
    assert [each.findtext("title") for each in plot.iter("g")] == ["slow told", f"{EVIL} told"]
    assert [text.text for text in classed(plot, "name")] == ["GB", "rating"]


def test_figures_of_many_sizes_get_a_logarithmic_axis() -> None:
    plot = drawn(scatter([spot("small", 0.1, 900), spot("large", 10, 1000)], "T", "D", ("GB", "rating")))
    across = scale([0.1, 10], log=True)
    assert [percent(each, "cx") for each in classed(plot, "spot")] == pytest.approx(
        [across.at(0.1), across.at(10)], abs=0.01
    )


def test_a_name_goes_where_no_other_point_is() -> None:
    crowd = [spot("left", 50, 1000), spot("right", 60, 1000), spot("end", 100, 900)]
    plot = drawn(scatter(crowd, "T", "D", ("GB", "rating")))
    anchors = {text.text: text.get("text-anchor") for text in classed(plot, "at")}
    assert anchors == {"left": "end", "right": "start", "end": "end"}


def test_labels_do_not_cover_each_other() -> None:
    for places in ([10.0, 11, 12, 300, 299], [0.0] * 5, [340.0] * 5, [5.0]):
        moved = apart(places, 340)
        ordered = sorted(moved)
        assert all(b - a >= LINE_HEIGHT - 1e-9 for a, b in pairwise(ordered))
        assert 0 <= min(moved) <= max(moved) <= 340
    many = sorted(apart([170.0] * 50, 340))
    assert max(many) <= 340
    assert min(b - a for a, b in pairwise(many)) == pytest.approx(340 / 50)


def test_what_no_other_beats_is_on_the_frontier() -> None:
    points = [(100.0, 900.0), (50.0, 1000.0), (40.0, 950.0), (100.0, 900.0)]
    assert frontier(points) == [True, True, False, True]
    assert frontier(points, more=False) == [False, True, True, False]


# ---- words


def test_names_of_models_differ_where_they_are_cut() -> None:
    names = (
        "qwen2.5:7b-instruct-q4_K_M", "qwen2.5:7b-instruct-q8_0", f"hf.co/bartowski/{LLAMA}:Q4_K_M",
        f"hf.co/bartowski/{LLAMA}:Q8_0", f"hf.co/unsloth/{LLAMA}:Q8_0", "tiny, stop a/b", "localhost:5000/me/mine:1",
    )  # fmt: skip
    assert list(shortened(names).values()) == [
        "qwen2.5:7b-i…ct-q4_K_M", "qwen2.5:7b-i…ruct-q8_0", "Meta-Llama-3…UF:Q4_K_M", "bartowski/Me…GGUF:Q8_0",
        "unsloth/Meta…GGUF:Q8_0", "tiny, stop a/b", "mine:1",
    ]  # fmt: skip
    plot = drawn(scatter([spot(names[3], 10, 1000)], "T", "D", ("GB", "rating")))
    assert [text.text for text in classed(plot, "at")] == ["Meta-Llama-3…GGUF:Q8_0"]
    plot = drawn(lines([series(names[0], 1000)], "T", "D"))
    assert [text.text for text in classed(plot, "end")] == ["qwen2.5:7b-i…ct-q4_K_M"]


def test_words_are_harmless_in_html_and_xml() -> None:
    assert words("a\x00b<&\"'\u202e") == "a b&lt;&amp;&quot;&#x27; "
    assert short("x" * 40) == f"{'x' * 12}…{'x' * 9}"
    assert len(HUES) == 8
