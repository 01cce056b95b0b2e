"""The commands about the store: one file with everything in it, and back."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from arena.cli.usage import WrongUsage
from arena.errors import BadRequest

if TYPE_CHECKING:
    from arena.settings import Settings
    from arena.store import Store

FLEET_FILE = "fleet.yaml"
ENGINE_FOLDERS = ("models", "engine")
"""As the fleet and the engine call them, which take long to import."""

app = typer.Typer(
    name="store",
    help="""Votes, battles, conversations and presets: back them up and restore them.

They lie in arena.sqlite3 in ARENA_DATA, or in the PostgreSQL database that ARENA_DATABASE_URL names.""",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

SkipDamaged = Annotated[
    bool, typer.Option("--skip-damaged", help="Go on without the rows that cannot be read; each is told.")
]
Data = Annotated[Path | None, typer.Option(help="Folder that holds arena.sqlite3 (ARENA_DATA).")]


@app.command(epilog="Examples:\n\n`python -m arena store backup votes.backup`")
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.", show_default=False)],
    skip_damaged: SkipDamaged = False,
    data: Data = None,
) -> None:
    """Write all of the store to one file, while the server runs. FILE is replaced if it is there."""
    from arena.store import backup as write

    if str(file) == "-":
        raise BadRequest("A backup cannot go to the standard output: give the name of a file, and pass that on")
    settings = chosen(data)
    check_foreign(file, settings)
    with ended_in_order(), existing(settings) as store, _way_on_told():
        count = write(store, file, left_out=_tell if skip_damaged else None)
        print(f"Backed up {count} votes to {file}.")


@app.command(
    epilog="Examples:\n\n`python -m arena store restore votes.backup`\n\n"
    "`ARENA_DATABASE_URL=postgresql://arena@db/arena python -m arena store restore votes.backup`"
)
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.", show_default=False)],
    replace: Annotated[bool, typer.Option("--replace", help="Give up what the store holds now.")] = False,
    skip_damaged: SkipDamaged = False,
    data: Data = None,
) -> None:
    """Fill the store from a backup, all or nothing, also from SQLite to PostgreSQL. The server must be stopped."""
    from arena.store import restore as read

    with ended_in_order(), opened(chosen(data)) as store, _way_on_told():
        count = read(store, file, replace=replace, left_out=_tell if skip_damaged else None)
        print(f"Restored {count} votes from {file}.")


def _tell(row: str) -> None:
    print(f"Left out: {row}", file=sys.stderr)


@contextmanager
def _way_on_told() -> Iterator[None]:
    """What is damaged ends the command, which can be given again with another option. Raises WrongUsage."""
    from arena.store import Damaged

    try:
        yield
    except Damaged as error:
        raise WrongUsage(f"{error.message}. With --skip-damaged all but such rows is taken") from None


def chosen(data: Path | None) -> Settings:
    """The settings; where a folder was named, those of the store in it."""
    from arena.settings import load

    return load() if data is None else load(data=data, database_url=None)


@contextmanager
def opened(settings: Settings) -> Iterator[Store]:
    """The store of the settings."""
    from arena.store import Store, url_of

    named = settings.database_url is None  # which may hold a password
    store = Store(url_of(settings), called=f"The store in {settings.data.absolute()}" if named else "The store")
    try:
        yield store
    finally:
        store.close()


@contextmanager
def existing(settings: Settings) -> Iterator[Store]:
    """The same store, for those who only read. Raises NotFound where there is none."""
    from arena.errors import NotFound

    with opened(settings) as store:
        if not store.exists:
            file = store.database.file
            raise NotFound(
                f"There is no store yet at {file}: nothing has been voted on or kept. "
                "--data or ARENA_DATA can name another folder"
            )
        yield store


def check_foreign(file: Path, settings: Settings) -> None:
    """Make sure that a file to write is none in which the arena keeps keys, settings or models. Raises BadRequest."""
    from arena.keys.file import FILE, usage_path
    from arena.store import same_file

    keys = settings.data / FILE
    own = (keys, usage_path(keys), settings.data / FLEET_FILE, settings.fleet, Path(".env"))
    real = Path(os.path.realpath(file))
    kept_apart = any(real.is_relative_to(os.path.realpath(settings.data / name)) for name in ENGINE_FOLDERS)
    if kept_apart or any(same_file(file, str(each)) for each in own if each is not None):
        raise BadRequest(f"{file} is one of the arena's own files: give another file")


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
