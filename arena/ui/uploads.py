"""What a page may ask for and send: listeners that there are, files that it has uploaded and no others."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import gradio as gr
from gradio.utils import get_upload_folder

from arena.errors import NotFound

log = logging.getLogger(__name__)


OUTDATED = "This page is not of the server that runs now. Reload it."
UNREADABLE = "What this page sent cannot be read. Reload it."


class Listeners(dict[int, Any]):
    """A page's listeners by number; one that is not there is told as an error of ours, which is no bug."""

    def __missing__(self, number: int) -> NoReturn:
        raise NotFound(OUTDATED)


class UploadsOnly(gr.Blocks):  # type: ignore[misc, unused-ignore]
    """Blocks whose events take uploaded files only, and whose refusals do not repeat a visitor's words to a terminal.

    Mounted in another app, Gradio itself checks nothing: an event that names `/etc/passwd` gets it copied to where
    the page serves files from, and one that names a web address has the server fetch it.
    """

    async def preprocess_data(self, block_fn: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        """What Gradio makes of an event's inputs. Raises gradio.Error for a file that was not uploaded.

        And for what is no input: Gradio would print that as it came, past the log, which writes it in one plain line.
        """
        if not all(uploaded(path) for path in named_files(inputs)):
            raise gr.Error("Only uploaded files can be attached.", print_exception=False)
        try:
            return await super().preprocess_data(block_fn, inputs, *rest, **named)
        except gr.Error as error:
            error.print_exception = False
            log.warning("inputs of the page were refused: %s", error.message)
            raise
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            log.warning("inputs of the page cannot be read: %s", error)
            raise gr.Error(UNREADABLE, print_exception=False) from None


def uploaded(path: object) -> bool:
    """Does `path` name something in the folder where uploads lie?"""
    try:
        return isinstance(path, str) and Path(path).resolve().is_relative_to(Path(get_upload_folder()).resolve())
    except (OSError, ValueError, RuntimeError):  # a null byte, a name too long, a circle of links
        return False


def named_files(value: Any) -> Iterator[object]:
    """What stands under `path` beside a `meta` or a `url`, wherever that is: so Gradio spells a file."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if "path" in item and ("meta" in item or "url" in item):
                yield item["path"]
            waiting += item.values()
        elif isinstance(item, list | tuple):
            waiting += item
