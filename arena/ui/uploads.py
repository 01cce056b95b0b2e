"""Which files a page may name: those it has uploaded, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder


class UploadsOnly(gr.Blocks):  # type: ignore[misc, unused-ignore]
    """Blocks whose events take uploaded files only.

    Mounted in another app, Gradio itself checks nothing: an event that names `/etc/passwd` gets it copied to where
    the page serves files from, and one that names a web address has the server fetch it.
    """

    async def preprocess_data(self, block_fn: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        """What Gradio makes of an event's inputs. Raises gradio.Error for a file that was not uploaded."""
        if not all(uploaded(path) for path in named_files(inputs)):
            raise gr.Error("Only uploaded files can be attached.", print_exception=False)
        return await super().preprocess_data(block_fn, inputs, *rest, **named)


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
