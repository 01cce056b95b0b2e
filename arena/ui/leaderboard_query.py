"""What somebody wants to see of the leaderboard, as the browser keeps it: the text of a query."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Final, Literal, get_args
from urllib.parse import parse_qs, urlencode

from msgspec import Struct

from arena.leaderboard import View

Part = Literal["ranking", "pairs", "time", "cost", "style", "method"]
PARTS: Final[dict[str, Part]] = {part: part for part in get_args(Part)}
MOST_CHARACTERS: Final = 200
MOST_VOTERS: Final = 50


class Chosen(Struct, frozen=True):
    """The part of the tab that is open, and which votes it is about.

    `settings` lists every model with its settings; `gone` also models that no host has any more; `since` and `until`
    are days, both included.
    """

    part: Part = "ranking"
    settings: bool = False
    blind: bool = True
    style: bool = False
    gone: bool = False
    category: str = ""
    tag: str = ""
    since: str = ""
    until: str = ""
    voters: tuple[str, ...] = ()

    @property
    def narrowed(self) -> bool:
        """Are there votes left out that would count by default?"""
        return bool(self.category or self.tag or self.since or self.until or self.voters)

    def view(self) -> View:
        """The votes, in the leaderboard's words."""
        return View(
            blind=self.blind,
            style=self.style,
            category=self.category or None,
            tag=self.tag or None,
            since=self.since or None,
            until=_next_day(self.until),
            voters=self.voters or None,
        )

    def told(self) -> str:
        """As text, which `chosen` reads."""
        given = {
            "part": self.part,
            **{name: "1" for name in ("settings", "blind", "style", "gone") if getattr(self, name)},
            **{name: getattr(self, name) for name in ("category", "tag", "since", "until") if getattr(self, name)},
        }
        return urlencode([*given.items(), *(("voter", each) for each in self.voters)])

    def asked(self, *, per: bool = True, style: bool = True) -> str:
        """The same votes as the query of an API route, with a leading question mark where there is anything to ask.

        Without `per` or `style` for routes that do not know them.
        """
        view = self.view()
        given = [
            ("per", "configuration" if per and self.settings else ""),
            ("blind", "" if view.blind else "false"),
            ("style", "true" if style and view.style else ""),
            *((name, getattr(view, name) or "") for name in ("category", "tag", "since", "until")),
            *(("voter", each) for each in self.voters),
        ]
        text = urlencode([(name, value) for name, value in given if value])
        return f"?{text}" if text else ""


def chosen(text: str | None) -> Chosen:
    """What a text asks for; what makes no sense in it is left out. Nothing at all is the plain leaderboard."""
    if not text:
        return Chosen()
    given = parse_qs(text[:10_000])
    last = {name: values[-1][:MOST_CHARACTERS] for name, values in given.items()}
    return Chosen(
        part=PARTS.get(last.get("part", ""), "ranking"),
        settings="settings" in last,
        blind="blind" in last,
        style="style" in last,
        gone="gone" in last,
        category=last.get("category", ""),
        tag=last.get("tag", ""),
        since=_day(last.get("since", "")),
        until=_day(last.get("until", "")),
        voters=tuple(each[:MOST_CHARACTERS] for each in dict.fromkeys(given.get("voter", ())))[:MOST_VOTERS],
    )


def _day(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        return ""


def _next_day(text: str) -> str | None:
    """The leaderboard takes votes before a moment; the last day there is stays as it is."""
    if not text:
        return None
    day = date.fromisoformat(text)
    return (day + timedelta(days=1)).isoformat() if day < date.max else text
