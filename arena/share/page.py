"""The frame of every shared page: its styles are inside, and its policy forbids all else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from typing import Final

from arena import __version__

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(title: str, told: Sequence[str], body: str, now: datetime | None = None) -> str:
    """A whole document. `title` and the lines `told` below it are plain text, `body` is HTML that is safe already."""
    style = files("arena.share").joinpath("page.css").read_text("utf-8")
    made = (now or datetime.now(UTC)).isoformat(sep=" ", timespec="minutes").removesuffix("+00:00")
    lines = "".join(f"<p>{escape(line)}</p>" for line in told)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"<header><h1>{escape(title)}</h1>{lines}</header>\n<main>\n{body}\n</main>\n"
        f"<footer>Made with Ollama Arena {escape(__version__)}, {made} UTC</footer>\n</body>\n</html>\n"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table. `head` is plain text, the cells are HTML that is safe already; `numbers` are columns of figures."""
    kind = [' class="number"' if place in numbers else "" for place in range(len(head))]
    top = "".join(f'<th scope="col"{of}>{escape(text)}</th>' for of, text in zip(kind, head, strict=True))
    body = "".join(
        f"<tr>{''.join(f'<td{of}>{cell}</td>' for of, cell in zip(kind, row, strict=True))}</tr>\n" for row in rows
    )
    return f'<div class="wide"><table>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>'
