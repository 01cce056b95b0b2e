"""What to do about an error: for every code a headline, a remedy in plain words, and perhaps a button."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Action = Literal["pull", "retry", "settings"]


class Remedy(Struct, frozen=True):
    """How the page explains an error. `action` is the button beside it."""

    headline: str
    advice: str
    action: Action | None = None


_UNKNOWN = Remedy("This answer failed", "Try again. The details are in the server's log.", "retry")

REMEDIES: dict[str, Remedy] = {
    "stopped": Remedy("Stopped", "What was said so far is kept and stays in this column's history.", "retry"),
    "model_not_found": Remedy("Model not installed", "Pull it, or choose another one above.", "pull"),
    "no_model": Remedy("No model chosen", "Pick one above. The Models tab installs new ones."),
    "no_vision": Remedy("This model cannot see", "It was not asked. Choose a model with vision, or send text only."),
    "backend_unreachable": Remedy(
        "The model server does not answer",
        "Start Ollama with `ollama serve`, or check the address under About. Then try again.",
        "retry",
    ),
    "no_endpoint": Remedy(
        "No model server",
        "Start Ollama with `ollama serve`, or set ARENA_ENGINE=on and restart to use the embedded engine.",
        "retry",
    ),
    "unknown_endpoint": Remedy(
        "That server is gone", "Open the column's settings and choose one that is there, or any."
    ),
    "timeout": Remedy("No answer in time", "The model may be too large for this machine, or busy. Try again.", "retry"),
    "upstream_broken": Remedy(
        "The answer broke off", "The model server ended it early; the text so far is kept.", "retry"
    ),
    "upstream_error": Remedy("The model server reports an error", "These are its own words.", "retry"),
    "budget_exceeded": Remedy(
        "The answer grew too long",
        "It was cut at the arena's own limit. Set num_predict to end it earlier.",
        "settings",
    ),
    "bad_request": Remedy("The model server refuses this request", "Check this column's settings.", "settings"),
    "context_exceeded": Remedy(
        "Too long for the context", "Shorten the prompt, start a new chat, or raise num_ctx.", "settings"
    ),
    "busy": Remedy("The server is busy", "Wait a moment, then try again.", "retry"),
    "too_many_requests": Remedy("Too many requests", "Wait a moment, then try again.", "retry"),
    "server_shutting_down": Remedy("The arena is restarting", "Try again when it is back.", "retry"),
    "unauthorized": Remedy("The model server refuses our credentials", "Check its address and its own settings."),
    "forbidden": Remedy("Not allowed here", "This arena does not permit it."),
}


def remedy(code: str) -> Remedy:
    """The explanation of `code`; all codes of a broken answer share one."""
    if code.startswith("upstream_") and code not in REMEDIES:
        return REMEDIES["upstream_broken"]
    return REMEDIES.get(code, _UNKNOWN)
