"""Who sits before the page: the identity that the guard has found, the same that the API counts and lets vote."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arena.battle import Voter
from arena.exchange import Caller

if TYPE_CHECKING:
    import gradio as gr

NOBODY = Caller(address="", counted_as="", request_id="")
"""Where no guard stands before the page."""


def caller_of(request: gr.Request) -> Caller:
    """Who sent one of the page's events."""
    asked = request.request
    caller: Caller = NOBODY if asked is None else asked.scope.get("arena.caller", NOBODY)
    return caller


def voter_of(caller: Caller) -> Voter:
    """Under which name, and from where, the caller votes."""
    return Voter(caller.voter, caller.address)
