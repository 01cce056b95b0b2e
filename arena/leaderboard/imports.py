"""Votes from files of other programs into the store: everything is read and checked before anything is kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any, BinaryIO, Final, Literal, get_args

import msgspec
from msgspec import Struct

from arena.errors import BadRequest
from arena.leaderboard import incoming, llm_comparator, lmarena, local_llm_arena
from arena.leaderboard.incoming import Comparison
from arena.store import Store
from arena.store.store import now
from arena.types import Configuration, Vote

Format = Literal["arena", "lmarena", "local-llm-arena", "llm-comparator"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)

MOST_VOTES: Final = 2_000_000
MOST_LINE_BYTES: Final = 16 * 1024 * 1024
MOST_DOCUMENT_BYTES: Final = 256 * 1024 * 1024
"""A file that is one JSON value is read whole; one of JSON lines may be as long as it likes."""

_BATCH: Final = 5000
_BOM: Final = b"\xef\xbb\xbf"
_BINARY: Final = {
    b"\x1f\x8b": "compressed with gzip: unpack it first",
    b"PK\x03\x04": "a ZIP archive: unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard: unpack it first",
    b"BZh": "compressed with bzip2: unpack it first",
    b"\xfd7zXZ": "compressed with xz: unpack it first",
    b"PAR1": "Parquet, not JSON: convert it to JSON lines",
    b"\xff\xfe": "UTF-16, not JSON in UTF-8: convert it",
    b"\xfe\xff": "UTF-16, not JSON in UTF-8: convert it",
}
"""By how a file begins, what it is."""
_CSV: Final = re.compile(rb"[^{\[\r\n]*\bmodel_a\b")
"""A first line that names a column, and begins no JSON."""
_HALF: Final = re.compile(
    rb"(?<!\\)(?:\\\\)*(?:\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F])"
)
"""An escape for one half of a pair of surrogates without the other, as a cut within a character leaves it."""
_NO_NUMBER: Final = re.compile(rb'"((?:[^"\\]|\\.){1,80})"\s*:\s*(-?(?:NaN|Infinity))')
"""What some programs write for a number that is none, behind its key."""
_COMPARISONS: Final[dict[Format, Callable[[dict[str, Any], str], Iterator[Comparison]]]] = {
    "local-llm-arena": local_llm_arena.comparisons,
    "llm-comparator": llm_comparator.comparisons,
}

Found = tuple[Vote, tuple[Configuration, ...]]
"""A vote, and those whose settings the file tells."""


class Imported(Struct, frozen=True):
    """What came of an import: so many votes are new, so many were here already."""

    format: Format
    new: int
    known: int


def import_votes(store: Store, file: BinaryIO, *, wanted: Format | None = None, rated: bool = True) -> Imported:
    """Keep the votes in `file`, which must be seekable; without `wanted` its format is found out.

    `rated`: may they count for the ratings? Raises BadRequest with the line and the key for what is no vote: then
    nothing is kept. Votes are kept a few thousand at a time, so that others can vote meanwhile; should that break off,
    the same import again completes it.
    """
    form, read = _reader(file, wanted, rated)
    for number, _ in enumerate(read(), 1):
        if number > MOST_VOTES:
            raise BadRequest(f"more than {MOST_VOTES:,} votes: split the file")
    new, total, found = 0, 0, read()
    while batch := list(islice(found, _BATCH)):
        new += store.add_votes((vote for vote, _ in batch), _contestants(batch))
        total += len(batch)
    return Imported(form, new, total - new)


def _contestants(batch: Iterable[Found]) -> Iterable[Configuration]:
    """Everybody on whom there are votes; those whose settings no vote tells are known by name alone."""
    batch = tuple(batch)
    known: dict[str, Configuration] = {}
    for _, told in batch:
        for each in told:
            known.setdefault(each.id, each)
    for vote, _ in batch:
        for identity, model in ((vote.configuration_a, vote.model_a), (vote.configuration_b, vote.model_b)):
            known.setdefault(identity, Configuration(identity, model))
    return known.values()


def _reader(file: BinaryIO, wanted: Format | None, rated: bool) -> tuple[Format, Callable[[], Iterator[Found]]]:
    """The format, and what reads the votes from the start each time it is called."""
    _check_text(file)
    first = _first_line(file)
    if first is not None and "winner" in first:
        return _expected("arena" if lmarena.is_own(first) else "lmarena", wanted), partial(_of_lines, file, rated)
    document = _document(file)
    if isinstance(document, list):
        rows = incoming.rows(document, "")
        own = bool(rows) and lmarena.is_own(rows[0])
        return _expected("arena" if own else "lmarena", wanted), partial(_of_rows, rows, rated)
    if local_llm_arena.fits(document):
        form = _expected("local-llm-arena", wanted)
    elif llm_comparator.fits(document):
        form = _expected("llm-comparator", wanted)
    elif "winner" in document:  # all of it, and yet too long for a line
        raise _too_long(1)
    else:
        raise BadRequest(f"the file has none of the formats {', '.join(FORMATS)}")
    return form, partial(_of_document, form, document, now(), rated)


def _expected(form: Format, wanted: Format | None) -> Format:
    if wanted not in (form, None):
        raise BadRequest(f"the file has the format {form}, not {wanted}")
    return form


def _check_text(file: BinaryIO) -> None:
    """Raises BadRequest for what is no text in UTF-8, with what it is."""
    file.seek(0)
    start = file.read(1024)
    if not start.strip():
        raise BadRequest("the file is empty")
    for magic, what in _BINARY.items():
        if start.startswith(magic):
            raise BadRequest(f"the file is {what}")
    if b"\0" in start:
        raise BadRequest("the file is binary, not JSON")
    if _CSV.match(start):
        raise BadRequest("the file is CSV, not JSON: export JSON lines, or convert it to them")


def _begin(file: BinaryIO) -> None:
    """Go to the first character, behind the mark that some editors begin a file with."""
    file.seek(0)
    file.seek(len(_BOM) if file.read(len(_BOM)) == _BOM else 0)


def _first_line(file: BinaryIO) -> dict[str, Any] | None:
    """The object in the first line, if there is one."""
    _begin(file)
    line = b"\n"
    while line.isspace():
        line = file.readline(MOST_LINE_BYTES)
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _document(file: BinaryIO) -> dict[str, Any] | list[Any]:
    _begin(file)
    text = file.read(MOST_DOCUMENT_BYTES + 1)
    if len(text) > MOST_DOCUMENT_BYTES:
        raise BadRequest(f"the file is larger than {MOST_DOCUMENT_BYTES:,} bytes: convert it to JSON lines")
    try:
        return msgspec.json.decode(text, type=dict[str, Any] | list[Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        told = _fault_told(text, 1) or f"line 1 is no vote, and the file as a whole is not JSON: {error}"
        raise BadRequest(told) from None


def _fault_told(text: bytes, number: int) -> str | None:
    """Where `text`, which begins with the line `number`, has half a character or a number that is none, if it does."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        place = error.start - text.rfind(b"\n", 0, error.start)
        line = number + text.count(b"\n", 0, error.start)
        return f"line {line} is not UTF-8: byte {text[error.start]:#04x} at its position {place}"
    half = _HALF.search(text) if b"\\u" in text else None  # which takes long where there is none
    if half is not None:
        line = number + text.count(b"\n", 0, half.start())
        return f"line {line} has half a character: an escape from U+D800 to U+DFFF without its other half"
    if (none := _NO_NUMBER.search(text) if b"NaN" in text or b"Infinity" in text else None) is not None:
        line = number + text.count(b"\n", 0, none.start())
        return f"line {line}: {none[1].decode()} is {none[2].decode()}, which is no JSON: write null"
    return None


def _of_lines(file: BinaryIO, rated: bool) -> Iterator[Found]:
    _begin(file)
    number = 0
    while line := file.readline(MOST_LINE_BYTES + 1):
        number += 1
        if len(line) > MOST_LINE_BYTES:
            raise _too_long(number)
        if line.isspace():
            continue
        try:
            yield lmarena.vote_of(msgspec.json.decode(line, type=dict[str, Any]), rated), ()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise BadRequest(_fault_told(line, number) or f"line {number} is not a JSON object") from None
        except BadRequest as error:
            raise BadRequest(f"line {number}: {error.message}") from None


def _too_long(number: int) -> BadRequest:
    return BadRequest(f"line {number} is longer than {MOST_LINE_BYTES:,} bytes")


def _of_rows(rows: Iterable[dict[str, Any]], rated: bool) -> Iterator[Found]:
    for place, row in enumerate(rows):
        try:
            yield lmarena.vote_of(row, rated), ()
        except BadRequest as error:
            raise BadRequest(f"[{place}]: {error.message}") from None


def _of_document(form: Format, document: dict[str, Any], now: str, rated: bool) -> Iterator[Found]:
    for comparison in _COMPARISONS[form](document, now):
        contestants = tuple(side.by for side in comparison.sides)
        for vote in incoming.votes_of(comparison, rated):
            yield vote, contestants
