"""Small plots as SVG that fits any width: positions are percentages, so text and strokes keep their size.

Every word from outside is escaped here. Colours are the style sheet's: a series has the class of its hue.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from html import escape
from typing import Final

from msgspec import Struct

HUES: Final = "abcdefgh"
"""As many colours as can be told apart."""
LINE_HEIGHT: Final = 16
"""Pixels that the label of a point needs, from one to the next."""

_EDGE, _NAME = 62.0, 30.0
"""Percent of a plot: from where a name has no room to the right, and how wide a name is, roughly."""
_STEPS: Final = (1, 2, 2.5, 5, 10)
_TAIL: Final = 9
"""Characters of a name's end that are always shown."""


class Scale(Struct, frozen=True):
    """From values to places, in percent of the way from `low` to `high`; `log` for figures of many sizes."""

    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """The place of a value: 0 at `low`, 100 at `high`."""
        low, high, here = (math.log(each) for each in (self.low, self.high, value)) if self.log else (
            self.low, self.high, value,
        )  # fmt: skip
        return 100 * (here - low) / (high - low)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values on the scale, at most so many where that is possible."""
        return _decades(self.low, self.high, most) if self.log else _rounds(self.low, self.high, most)


def scale(values: Iterable[float], *, log: bool = False, room: float = 0.04) -> Scale:
    """A scale on which all `values` have their place, with some room (a share of the whole) at both ends."""
    known = list(values)
    if log:
        return Scale(min(known) / 1.3, max(known) * 1.3, log=True)
    low, high = min(known), max(known)
    margin = (high - low) * room or abs(high) * room or 1.0
    return Scale(low - margin, high + margin)


def words(text: str) -> str:
    """A text from outside, fit for SVG and HTML alike: escaped, and without characters that XML does not know."""
    return escape("".join(char if char.isprintable() else " " for char in text))


def figure(value: float) -> str:
    """A tick for people: 0.5, 47.5, 1200."""
    return f"{value:.0f}" if value == round(value) else f"{value:g}"


# ---- an interval in a row of a table


def interval(on: Scale, lower: float, value: float, upper: float, title: str, *, mark: float | None = None) -> str:
    """A value with its interval, to be set under the ticks of `axis`; `mark` is a place to compare with."""
    left, right = on.at(lower), on.at(upper)
    grid = "".join(
        f'<line class="grid" x1="{on.at(at):.2f}%" x2="{on.at(at):.2f}%" y1="0" y2="100%"/>' for at in on.ticks()
    )
    compared = (
        f'<line class="mark" x1="{on.at(mark):.2f}%" x2="{on.at(mark):.2f}%" y1="0" y2="100%"/>'
        if mark is not None
        else ""
    )
    return (
        f'<svg class="interval" width="100%" height="24" role="img"><title>{words(title)}</title>{grid}{compared}'
        f'<rect class="range" x="{left:.2f}%" y="10" width="{right - left:.2f}%" height="4" rx="2"/>'
        f'<circle class="point" cx="{on.at(value):.2f}%" cy="12" r="5"/></svg>'
    )


def axis(on: Scale) -> str:
    """The ticks of a scale, for the head of a column of intervals."""
    told = "".join(f'<text x="{on.at(at):.2f}%" y="12" text-anchor="middle">{figure(at)}</text>' for at in on.ticks())
    return f'<svg class="axis" width="100%" height="16" aria-hidden="true">{told}</svg>'


# ---- lines over time


class Reading(Struct, frozen=True):
    """A rating at the end of a day, with its bounds."""

    day: date
    value: float
    lower: float
    upper: float


class Series(Struct, frozen=True):
    """One line: its name, the letter of its hue ("" for a quiet one), and what it goes through."""

    name: str
    hue: str
    readings: tuple[Reading, ...]


def lines(series: Sequence[Series], title: str, description: str, height: int = 340) -> str:
    """Ratings over time: a line with its band for each series, its name at the end, and a legend for narrow screens.

    Quiet lines have neither band nor name; pointing at them tells whose they are. Bands may reach beyond the plot,
    but for their ends: what few votes left open once must not press together what many have settled since.
    """
    days = [reading.day.toordinal() for each in series for reading in each.readings]
    across = Scale(min(days) - 0.5, max(days) + 0.5) if min(days) == max(days) else Scale(min(days), max(days))
    up = scale(_told(series))
    bands = "".join(
        _band(each, across, up) + _path(each, across, up) for each in reversed(series) if len(each.readings) > 1
    )
    dots = "".join(_dots(each, across, up) for each in reversed(series))
    named = [each for each in series if each.hue]
    ends = [(100 - up.at(each.readings[-1].value)) * height / 100 for each in named]
    labels = shortened(each.name for each in series)
    names = "".join(
        f'<text class="{_kind(each)} end" x="100%" dx="10" y="{at:.1f}" dy="4">{words(labels[each.name])}</text>'
        for each, at in zip(named, apart(ends, height), strict=True)
    )
    inner = (
        f'<svg class="within" viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="100%">{bands}</svg>'
    )
    drawn = f"{_open(title, description, height)}{_levels(up)}{_days(across)}{inner}{dots}{names}</svg>"
    return f'<figure class="plot lines">{drawn}{legend(named)}</figure>'


def _told(series: Sequence[Series]) -> Iterator[float]:
    """What has to be seen: all values, and the bounds at the end of each line."""
    for each in series:
        yield from (one.value for one in each.readings)
        yield from (each.readings[-1].lower, each.readings[-1].upper)


def legend(series: Sequence[Series]) -> str:
    """The names of the series with their colours."""
    told = "".join(f'<li class="{_kind(each)}"><i></i>{words(each.name)}</li>' for each in series)
    return f'<ul class="legend-list">{told}</ul>'


def _band(each: Series, across: Scale, up: Scale) -> str:
    there = [f"{across.at(one.day.toordinal()):.2f},{100 - up.at(one.upper):.2f}" for one in each.readings]
    back = [f"{across.at(one.day.toordinal()):.2f},{100 - up.at(one.lower):.2f}" for one in reversed(each.readings)]
    return f'<polygon class="{_kind(each)} band" points="{" ".join(there + back)}"/>' if each.hue else ""


def _path(each: Series, across: Scale, up: Scale) -> str:
    points = " ".join(f"{across.at(one.day.toordinal()):.2f},{100 - up.at(one.value):.2f}" for one in each.readings)
    return f'<polyline class="{_kind(each)} line" points="{points}"/>'


def _dots(each: Series, across: Scale, up: Scale) -> str:
    """A dot for each day, which tells its figures; the last one is seen, and its interval where it is the only one."""
    found, last = [], len(each.readings) - 1
    for number, one in enumerate(each.readings):
        x, kind = f"{across.at(one.day.toordinal()):.2f}%", "last" if number == last else "day"
        if not last:
            bounds = f'y1="{100 - up.at(one.upper):.2f}%" y2="{100 - up.at(one.lower):.2f}%"'
            found.append(f'<line class="{_kind(each)} error" x1="{x}" x2="{x}" {bounds}/>')
        told = f"{each.name}, {one.day.isoformat()}: {one.value:.0f} ({one.lower:.0f} to {one.upper:.0f})"
        found.append(
            f'<circle class="{_kind(each)} {kind}" cx="{x}" cy="{100 - up.at(one.value):.2f}%" r="4">'
            f"<title>{words(told)}</title></circle>"
        )
    return "".join(found)


def _days(across: Scale) -> str:
    """Some days under the plot; the outermost ones stay inside of it."""
    first, last = math.ceil(across.low), math.floor(across.high)
    count = min(4, last - first)
    days = [first + round((last - first) * step / count) for step in range(count + 1)] if count else [first]
    anchors = {0: "start", len(days) - 1: "end"} if count else {0: "middle"}
    return "".join(
        f'<text class="tick" x="{across.at(day):.2f}%" y="100%" dy="18" text-anchor="{anchors.get(at, "middle")}">'
        f"{date.fromordinal(day).strftime('%d %b')}</text>"
        for at, day in enumerate(days)
    )


# ---- one figure against another


class Spot(Struct, frozen=True):
    """One point with the bounds of both figures; `best` if nothing is better in both."""

    name: str
    hue: str
    x: float
    x_lower: float
    x_upper: float
    y: float
    y_lower: float
    y_upper: float
    title: str
    best: bool = False


def scatter(spots: Sequence[Spot], title: str, description: str, axes: tuple[str, str], height: int = 340) -> str:
    """Points with their intervals in both directions; the axis across is logarithmic where the figures differ much.

    Points without a hue have a name only if nothing beats them; pointing at the others tells it.
    """
    reach = [bound for spot in spots for bound in (spot.x_lower, spot.x, spot.x_upper)]
    log = min(reach) > 0 and max(reach) > 12 * min(reach)
    across = scale(reach, log=True) if log else Scale(0, max(reach) * 1.08)
    up = scale(bound for spot in spots for bound in (spot.y_lower, spot.y_upper))
    feet = "".join(
        f'<line class="grid" x1="{across.at(at):.2f}%" x2="{across.at(at):.2f}%" y1="0" y2="100%"/>'
        f'<text class="tick" x="{across.at(at):.2f}%" y="100%" dy="18" text-anchor="middle">{figure(at)}</text>'
        for at in across.ticks()
    )
    drawn = "".join(_spot(spot, across, up) for spot in spots)
    dots = [(across.at(spot.x), (100 - up.at(spot.y)) * height / 100) for spot in spots]
    named = [(spot, dot) for spot, dot in zip(spots, dots, strict=True) if spot.hue or spot.best]
    places = apart([y for _, (_, y) in named], height)
    labels = shortened(spot.name for spot in spots)
    names = "".join(
        _spot_name(spot, labels[spot.name], x, y, dots) for (spot, (x, _)), y in zip(named, places, strict=True)
    )
    told = f'<text class="tick name" x="100%" y="100%" dy="36" text-anchor="end">{words(axes[0])}</text>'
    told += f'<text class="tick name" x="0" dx="-44" y="-10">{words(axes[1])}</text>'
    whole = f"{_open(title, description, height)}{_levels(up)}{feet}{drawn}{names}{told}</svg>"
    return f'<figure class="plot scatter">{whole}</figure>'


def _spot(spot: Spot, across: Scale, up: Scale) -> str:
    kind = f"hue-{spot.hue}" if spot.hue else "rest"
    x, y = f"{across.at(spot.x):.2f}%", f"{100 - up.at(spot.y):.2f}%"
    best = " best" if spot.best else ""
    left, right = f"{across.at(spot.x_lower):.2f}%", f"{across.at(spot.x_upper):.2f}%"
    top, bottom = f"{100 - up.at(spot.y_upper):.2f}%", f"{100 - up.at(spot.y_lower):.2f}%"
    return (
        f'<g class="{kind}{best}"><title>{words(spot.title)}</title>'
        f'<line class="error" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>'
        f'<line class="error" x1="{x}" x2="{x}" y1="{top}" y2="{bottom}"/>'
        f'<circle class="spot" cx="{x}" cy="{y}" r="5.5"/></g>'
    )


def _spot_name(spot: Spot, label: str, x: float, y: float, dots: Sequence[tuple[float, float]]) -> str:
    """The name beside its point, on the side where there is room."""

    def free(side: int) -> bool:
        edge = x < _EDGE if side > 0 else x > 100 - _EDGE
        return edge and not any(0 < side * (dot - x) < _NAME and abs(level - y) < LINE_HEIGHT for dot, level in dots)

    left = not free(1) and (free(-1) or x >= _EDGE)
    anchor, dx = ("end", -11) if left else ("start", 11)
    kind = f"hue-{spot.hue}" if spot.hue else "rest"
    place = f'x="{x:.2f}%" dx="{dx}" y="{y:.1f}" dy="4" text-anchor="{anchor}"'
    return f'<text class="{kind} at" {place}>{words(label)}</text>'


def frontier(points: Sequence[tuple[float, float]], *, more: bool = True) -> list[bool]:
    """Which of the points (speed or cost, quality) no other one beats in both; `more`: is a high first figure good?"""

    def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
        first = one[0] - other[0] if more else other[0] - one[0]
        return first >= 0 and one[1] >= other[1] and one != other

    return [not any(beats(other, point) for other in points) for point in points]


# ---- what they share


def shortened(names: Iterable[str]) -> dict[str, str]:
    """Names of models that fit into a plot, without registry and namespace; with it those that would look alike."""
    known = list(names)
    found = {name: short(_without(name, 1)) for name in known}
    alike = Counter(found.values())
    return {name: text if alike[text] == 1 else short(_without(name, 2)) for name, text in found.items()}


def short(text: str, most: int = 22) -> str:
    """A text cut in the middle where it is longer than `most`: sizes and quantisations stand at the ends of names."""
    return text if len(text) <= most else f"{text[: most - _TAIL - 1]}…{text[-_TAIL:]}"


def _without(name: str, parts: int) -> str:
    """The last parts of a model's name; what follows a comma are its settings."""
    model, comma, settings = name.partition(", ")
    return "/".join(model.split("/")[-parts:]) + comma + settings


def apart(places: Sequence[float], height: float) -> list[float]:
    """The places moved up and down as little as it takes for their labels not to cover each other."""
    order = sorted(range(len(places)), key=places.__getitem__)
    step = min(LINE_HEIGHT, height / max(1, len(places)))
    moved: list[float] = []
    for number, at in enumerate(order):
        least = moved[-1] + step if moved else 0.0
        most = height - step * (len(order) - 1 - number)
        moved.append(min(max(places[at], least), most))
    for number in range(len(moved) - 2, -1, -1):  # those that were pushed down by the floor push back
        moved[number] = min(moved[number], moved[number + 1] - step)
    found = [0.0] * len(places)
    for at, place in zip(order, moved, strict=True):
        found[at] = place
    return found


def _open(title: str, description: str, height: int) -> str:
    return (
        f'<svg width="100%" height="{height}" role="img"><title>{words(title)}</title><desc>{words(description)}</desc>'
    )


def _levels(up: Scale) -> str:
    """Lines across, with what they stand for."""
    return "".join(
        f'<line class="grid" x1="0" x2="100%" y1="{100 - up.at(at):.2f}%" y2="{100 - up.at(at):.2f}%"/>'
        f'<text class="tick" x="0" dx="-8" y="{100 - up.at(at):.2f}%" dy="4" text-anchor="end">{figure(at)}</text>'
        for at in up.ticks()
    )


def _kind(each: Series) -> str:
    return f"hue-{each.hue}" if each.hue else "rest"


def _rounds(low: float, high: float, most: int) -> list[float]:
    rough = (high - low) / most
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * each for each in _STEPS if unit * each >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def _decades(low: float, high: float, most: int) -> list[float]:
    """1, 2, 5, 10... where these are few enough, else powers of ten."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [round(step * 10.0**power, 10) for power in powers for step in steps]
        found = [each for each in found if low <= each <= high]
        if len(found) <= most:
            return found
    return found
