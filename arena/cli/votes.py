"""The commands about votes: files of other programs into the store, and all votes out of it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, BinaryIO, cast

import typer

from arena.cli.store import Data, check_foreign, chosen, ended_in_order, existing, opened
from arena.errors import BadRequest

if TYPE_CHECKING:
    from arena.leaderboard import Format
    from arena.store import Store

STANDARD_OUTPUT = 1
"""The number of its descriptor."""

app = typer.Typer(
    name="votes",
    help="""Votes: bring them in from other programs, and take them out.

They lie in the store; see `python -m arena store`.""",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


class Incoming(StrEnum):
    """What can be read."""

    AUTO = "auto"
    ARENA = "arena"
    LMARENA = "lmarena"
    LOCAL_LLM_ARENA = "local-llm-arena"
    LLM_COMPARATOR = "llm-comparator"


class Outgoing(StrEnum):
    """What can be written."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    PREFERENCES = "preferences"


@app.command(
    "import",
    epilog="Examples:\n\n`python -m arena votes import clean_battle.json`\n\n"
    "`python -m arena votes import chat.json --format local-llm-arena`",
)
def take(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What to read; - is the standard input.")],
    form: Annotated[Incoming, typer.Option("--format", help="Its format; found out by itself.")] = Incoming.AUTO,
    rated: Annotated[bool, typer.Option("--rated/--unrated", help="May they count for the ratings?")] = True,
    data: Data = None,
) -> None:
    """Bring votes in, each only once however often it is tried; also while the server runs.

    Of a file with a mistake in it nothing is kept. Votes are marked with their source, and count as blind only where
    the format says so.
    """
    from arena.leaderboard import import_votes

    with _readable(file) as content, opened(chosen(data)) as store:
        wanted = None if form is Incoming.AUTO else cast("Format", form.value)
        done = import_votes(store, content, wanted=wanted, rated=rated)
    print(f"{done.new} votes of the format {done.format} are new, {done.known} were here already.")


@app.command(epilog="Examples:\n\n`python -m arena votes export votes.csv`\n\n`python -m arena votes export | gzip`")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write; - is the standard output.")] = Path("-"),
    form: Annotated[
        Outgoing | None,
        typer.Option("--format", help="As the name of FILE says, else jsonl; preferences are pairs for training."),
    ] = None,
    data: Data = None,
) -> None:
    """Write all votes, in the field names of LMArena's published battles, also while the server runs."""
    from arena.store import check_apart, own_descriptor, readable

    settings = chosen(data)
    if own_descriptor(file) == STANDARD_OUTPUT:
        file = Path("-")
    if str(file) != "-":
        check_foreign(file, settings)
    suffix = file.suffix.removeprefix(".").lower()
    wanted = form or (Outgoing(suffix) if suffix in set(Outgoing) else Outgoing.JSONL)
    # A reader that has stopped could hold up the end of what is written to the standard output; it leaves no file.
    with nullcontext() if str(file) == "-" else ended_in_order(), existing(settings) as store:
        if str(file) != "-":
            check_apart(store, file)
        with readable(store) as source:
            pieces = _pieces(source, wanted)
            with _writable(file) as target:
                target.writelines(pieces)
    if str(file) != "-":
        print(f"Written to {file}.")


def _pieces(store: Store, wanted: Outgoing) -> Iterator[bytes]:
    from arena import leaderboard

    written = {
        Outgoing.JSONL: leaderboard.votes_jsonl,
        Outgoing.CSV: leaderboard.votes_csv,
        Outgoing.PARQUET: leaderboard.votes_parquet,
        Outgoing.PREFERENCES: leaderboard.preferences,
    }
    return written[wanted](store)


@contextmanager
def _writable(file: Path) -> Iterator[BinaryIO]:
    """The file, once all of it is written, or the standard output."""
    from arena.store import replacing

    if str(file) != "-":
        with replacing(file) as target:
            yield target
        return
    try:
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise  # whoever reads has had enough
    except OSError as error:
        raise BadRequest(f"The standard output cannot be written: {error.strerror}") from error


@contextmanager
def _readable(file: Path) -> Iterator[BinaryIO]:
    """The file, or a copy of what cannot be read twice: the standard input, or a pipe."""
    try:
        content = nullcontext(sys.stdin.buffer) if str(file) == "-" else file.open("rb")
    except OSError as error:
        raise BadRequest(f"{file} cannot be read: {error.strerror}") from None
    with content as given, TemporaryFile() as copy:
        if str(file) != "-" and given.seekable():
            yield given
            return
        shutil.copyfileobj(given, copy)
        yield copy
