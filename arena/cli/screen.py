"""How answers are shown: columns that grow in a terminal, plain text in a pipe, or one JSON line for each event."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TextIO

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from arena.streaming import Reply, Transcript
from arena.types import Batch, Delta, Failed, Finished, Metrics, ModelInfo, PullJob

FRAME_LINES = 7
"""Lines of the terminal that a growing column leaves free: its border, its status and the prompt line above."""

UNKNOWN = "\N{EN DASH}"
"""Stands for a figure that is not known or not reliable."""

REMEDIES: Mapping[str, str] = {
    "model_not_found": "; the command models lists what is installed, pull fetches more",
}
"""By an error's code, what to do about it at a terminal."""


class View(Protocol):
    """Shows a run while it goes on."""

    transcript: Transcript

    def live(self) -> AbstractContextManager[object]:
        """Shown from entering to leaving this."""

    def apply(self, batch: Batch) -> None:
        """Take in what has arrived."""


class Columns:
    """Side by side in a terminal: the tail of each answer while it grows, all of it at the end."""

    def __init__(self, names: Sequence[str], console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.transcript = Transcript(list(names))
        self._console = console
        self._clock = clock
        self._began_s = clock()
        self._growing = True

    def live(self) -> AbstractContextManager[object]:
        """Redrawn eight times a second until left; then drawn once more, in full."""
        return Live(self, console=self._console, refresh_per_second=8, vertical_overflow="crop")

    def apply(self, batch: Batch) -> None:
        """Take in what has arrived."""
        self.transcript.apply(batch, self._clock())
        self._growing = not all(reply.ended for reply in self.transcript.replies.values())

    def __rich__(self) -> RenderableType:
        """All columns as they are now."""
        replies = list(self.transcript.replies.values())
        width = max(20, self._console.width // len(replies))
        grid = Table.grid(expand=True)
        for _ in replies:
            grid.add_column(ratio=1)
        grid.add_row(*(self._column(reply, width - 4) for reply in replies))
        return grid

    def _column(self, reply: Reply, width: int) -> Panel:
        text = Text()
        if reply.thinking:
            text.append(printable(reply.thinking.strip()) + "\n\n", style="dim italic")
        text.append(printable(reply.text))
        lines = text.wrap(self._console, width)
        room = self._console.height - FRAME_LINES
        if self._growing and len(lines) > room:
            lines = type(lines)(lines[-room:])
        status = Text(status_line(reply, self._clock() - self._began_s), style="red" if reply.error else "dim")
        return Panel(Group(Text("\n").join(lines), status), title=Text(reply.instance_id), title_align="left")


class Plain:
    """For a pipe or a file: answers verbatim on standard output, what they cost on standard error.

    One model's text comes out as it arrives; several models' texts come out whole, under their names.
    """

    def __init__(self, names: Sequence[str], out: TextIO, err: TextIO) -> None:
        self.transcript = Transcript(list(names))
        self._out = out
        self._err = err

    def live(self) -> AbstractContextManager[object]:
        """Nothing to set up."""
        return nullcontext()

    def apply(self, batch: Batch) -> None:
        """Take in what has arrived."""
        alone = len(self.transcript.replies) == 1
        self.transcript.apply(batch)
        for event in batch:
            if alone and isinstance(event, Delta):
                self._out.write(event.text)
            if isinstance(event, Finished | Failed):
                self._end(self.transcript.replies[event.instance_id], alone)
        self._out.flush()

    def _end(self, reply: Reply, alone: bool) -> None:
        if alone:
            self._out.write("\n")
        else:
            self._out.write(f"## {reply.instance_id}\n\n{reply.text.strip()}\n\n")
        self._out.flush()
        print(f"{reply.instance_id}: {status_line(reply, 0)}", file=self._err)


class JsonLines:
    """For programs: every event as one JSON object on a line of its own."""

    def __init__(self, names: Sequence[str], out: TextIO) -> None:
        self.transcript = Transcript(list(names))
        self._out = out

    def live(self) -> AbstractContextManager[object]:
        """Nothing to set up."""
        return nullcontext()

    def apply(self, batch: Batch) -> None:
        """Take in what has arrived."""
        self.transcript.apply(batch)
        for event in batch:
            self._out.write(msgspec.json.encode(event).decode() + "\n")
        self._out.flush()


def view_for(names: Sequence[str], *, as_json: bool) -> View:
    """The view that fits standard output."""
    if as_json:
        return JsonLines(names, sys.stdout)
    console = Console()
    return Columns(names, console) if console.is_terminal else Plain(names, sys.stdout, sys.stderr)


def printable(text: str) -> str:
    """`text` without what a terminal obeys: a model must not move the cursor or rename the window."""
    return "".join(char if char in "\n\t" or not _control(char) else "\N{REPLACEMENT CHARACTER}" for char in text)


def _control(char: str) -> bool:
    return char < " " or "\x7f" <= char <= "\x9f"


def status_line(reply: Reply, waited_s: float) -> str:
    """One line on an answer: its state, and when it has ended what it cost. A dash stands for an unreliable figure."""
    if reply.error is not None:
        return f"{reply.error.code}: {printable(reply.error.message)}{REMEDIES.get(reply.error.code, '')}"
    if reply.metrics is not None:
        return "done · " + metrics_line(reply.metrics)
    return "answering" if reply.text or reply.thinking else f"waiting {waited_s:.0f} s"


def metrics_line(metrics: Metrics) -> str:
    """Tokens, rate, time to first token, the shares of the time, and why figures may not be comparable."""
    rate = metrics.tokens_per_sec if metrics.rate_reliable else None
    parts = [
        f"{UNKNOWN} tokens" if metrics.tokens is None else f"{metrics.tokens} tokens",
        f"{UNKNOWN} tokens/s" if rate is None else f"{rate:.1f} tokens/s",
        f"first token {UNKNOWN}" if metrics.ttft_s is None else f"first token {metrics.ttft_s:.2f} s",
    ]
    shares = {
        "queue": metrics.queue_s,
        "load": metrics.load_s,
        "prompt": metrics.prompt_s,
        "generation": metrics.duration_s,
    }
    if known := [f"{name} {seconds:.2f}" for name, seconds in shares.items() if seconds is not None]:
        parts.append(" / ".join(known) + " s")
    flags = {
        "shared its endpoint": metrics.contended,
        "prompt cached": metrics.prompt_cached,
        "cut by limit": metrics.cut_by_limit,
    }
    return " · ".join([*parts, *(flag for flag, raised in flags.items() if raised)])


def models_table(models: Iterable[ModelInfo]) -> Table:
    """The installed models as a table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("model", "size", "parameters", "quantisation", "on", "in memory"):
        table.add_column(heading, justify="right" if heading in ("size", "parameters") else "left")
    for info in models:
        cells = (
            info.name,
            f"{info.size_bytes / 1e9:.2f} GB" if info.size_bytes else UNKNOWN,
            info.parameter_size or UNKNOWN,
            info.quantization or UNKNOWN,
            ", ".join(info.endpoints),
            ", ".join(info.loaded_on),
        )
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


class DownloadLines:
    """A download in a log: a line whenever its state changes or another tenth has come."""

    def __init__(self, err: TextIO) -> None:
        self._err = err
        self._said = ""

    def __enter__(self) -> DownloadLines:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __call__(self, job: PullJob) -> None:
        """Tell of `job` if there is news."""
        tenths = f" {job.completed_bytes * 10 // job.total_bytes * 10} %" if job.total_bytes else ""
        line = f"{job.model}: {job.error or job.status or job.state}{tenths}"
        if line != self._said:
            self._said = line
            print(printable(line), file=self._err, flush=True)


class DownloadBar:
    """A bar for one download after another; call it with a job's newest state. It shows up at the first call."""

    def __init__(self, console: Console) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> DownloadBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar.live.is_started:
            self._bar.stop()

    def __call__(self, job: PullJob) -> None:
        """Show `job` as it is now; the bar stays when it has ended."""
        if job.id not in self._tasks:
            self._tasks[job.id] = self._bar.add_task("", total=None)
        self._bar.update(
            self._tasks[job.id],
            description=escape(printable(f"{job.model} {job.error or job.status}")),
            completed=job.completed_bytes,
            total=job.total_bytes or None,
        )
        if job.state == "downloading":
            self._bar.start()
        elif self._bar.live.is_started:
            self._bar.stop()


def download_view() -> DownloadBar | DownloadLines:
    """The view of a download that fits standard error."""
    console = Console(stderr=True)
    return DownloadBar(console) if console.is_terminal else DownloadLines(sys.stderr)
