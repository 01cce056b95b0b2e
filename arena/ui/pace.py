"""Slows down Gradio's queue, which polls a thousand times a second even when nothing happens."""

from __future__ import annotations

import gradio as gr

IDLE_POLL_S = 0.015
"""How long the queue sleeps between two looks for new work, in seconds. An event waits half of it on average."""
PROGRESS_POLL_S = 0.1
"""The same for progress bars, in seconds; the page has none of Gradio's."""


def calm_the_queue(demo: gr.Blocks) -> None:
    """Make an idle page cost a tenth of what it does otherwise (5.8 % of a core).

    The two numbers are attributes of Gradio's queue and not part of its interface: a test watches over them.
    """
    queue = demo._queue
    queue.sleep_when_free = IDLE_POLL_S
    queue.progress_update_sleep_when_free = PROGRESS_POLL_S
