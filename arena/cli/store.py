"""The commands about the store: one file with everything in it, and back."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from arena.store import Store

app = typer.Typer(
    name="store",
    help="""Votes, battles, conversations and presets: back them up and restore them.

They lie in arena.sqlite3 in ARENA_DATA, or in the PostgreSQL database that ARENA_DATABASE_URL names.""",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Data = Annotated[Path | None, typer.Option(help="Folder that holds arena.sqlite3 (ARENA_DATA).")]


@app.command(epilog="Examples:\n\n`python -m arena store backup votes.backup`")
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.", show_default=False)],
    data: Data = None,
) -> None:
    """Write all of the store to one file, while the server runs. FILE is replaced if it is there."""
    from arena.store import backup as write

    with ended_in_order(), existing(data) as store:
        print(f"Backed up {write(store, file)} votes to {file}.")


@app.command(
    epilog="Examples:\n\n`python -m arena store restore votes.backup`\n\n"
    "`ARENA_DATABASE_URL=postgresql://arena@db/arena python -m arena store restore votes.backup`"
)
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.", show_default=False)],
    replace: Annotated[bool, typer.Option("--replace", help="Give up what the store holds now.")] = False,
    data: Data = None,
) -> None:
    """Fill the store from a backup, all or nothing, also from SQLite to PostgreSQL. Stop the server before."""
    from arena.store import restore as read

    with ended_in_order(), opened(data) as store:
        print(f"Restored {read(store, file, replace=replace)} votes from {file}.")


@contextmanager
def opened(data: Path | None) -> Iterator[Store]:
    """The store of the settings, or the one in the folder that was named."""
    from arena.settings import load
    from arena.store import Store, url_of

    settings = load() if data is None else load(data=data, database_url=None)
    named = settings.database_url is None  # which may hold a password
    store = Store(url_of(settings), called=f"The store in {settings.data.absolute()}" if named else "The store")
    try:
        yield store
    finally:
        store.close()


@contextmanager
def existing(data: Path | None) -> Iterator[Store]:
    """The same store, for those who only read. Raises NotFound where there is none."""
    from arena.errors import NotFound

    with opened(data) as store:
        if not store.exists:
            file = store.database.file
            raise NotFound(
                f"There is no store yet at {file}: nothing has been voted on or kept. "
                "--data or ARENA_DATA can name another folder"
            )
        yield store


@contextmanager
def ended_in_order() -> Iterator[None]:
    """SIGTERM and SIGHUP end the command as SystemExit(128 + number): what is half done is removed.

    Where they are ignored, as by nohup, they stay so.
    """
    before: dict[int, Any] = {}

    def end(number: int, _: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)  # terminals and service managers send both, and clean-up goes on
        raise SystemExit(128 + number)

    try:
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, end)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
