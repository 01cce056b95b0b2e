"""Every fault an endpoint can have, by its number in the fault model, and what becomes of an answer under it.

`F06.head` is a second form of F06. The number and the door together name a test: F06.head-stream_chat.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from tests.fake_ollama import text_of, text_said_by

Accept = Literal["normal", "refuse", "blackhole", "eof", "rst"]
GONE = "gone:1b"
"""The model that lies on the other endpoint only."""
BUDGET = 2000
"""Pieces of text after which an answer is cut."""
WEIRD = text_of(5)[: len(text_of(2))] + "\ufffd(" + text_of(5)[len(text_of(2)) :]


class Fault(Struct, frozen=True):
    """A model that misbehaves, or an endpoint that does (`accept`).

    `code` is the answer's error, "" where there is none; `text` what is kept of it, None where that depends on luck,
    and then it is a beginning of the right text. `primed`: it befalls the second request. `resent`: it looks like a
    kept-alive connection that has died, so that the request may go out once more. `or_code`: a race decides.
    """

    model: str
    code: str = ""
    text: str | None = ""
    accept: Accept = "normal"
    primed: bool = False
    resent: bool = False
    or_code: str = ""

    @property
    def endpoint(self) -> str:
        """The name of the endpoint it happens at."""
        return "fake" if self.accept == "normal" else "other"


def _good(model: str, *, primed: bool = False) -> Fault:
    """Looks dangerous, and must be invisible."""
    return Fault(model, "", text_said_by(model), primed=primed)


FIVE = text_of(5)

# without one byte of an answer's body: these can befall every route
REFUSALS: dict[str, Fault] = {
    "F04": Fault("fx-hang", "timeout"),
    "F04.half": Fault("fx-halfhead", "timeout"),
    "F05": Fault("fx-eof0", "upstream_eof", resent=True),
    "F06": Fault("fx-rst0", "upstream_reset", resent=True),
    "F06.head": Fault("fx-rst-head", "upstream_reset"),
    "F07": Fault("fx-status:c-500", "upstream_error"),
    "F07.big": Fault("fx-bigerr:mb-2", "upstream_error"),
    "F08": Fault("fx-status:c-503", "busy"),
    "F09": Fault("fx-status:c-429_ra-2", "rate_limited"),
    "F10": Fault("fx-status:c-404", "model_not_found"),
    "F10.path": Fault("fx-status:c-404_kind-text", "not_ollama"),
    "F11": Fault("fx-status:c-401", "upstream_refused"),
    "F11.forbidden": Fault("fx-status:c-403", "upstream_refused"),
    "F12": Fault("fx-redirect", "upstream_broken"),
    "F13": Fault("fx-html", "not_ollama"),
    "F13.noise": Fault("fx-http09", "upstream_broken"),
}

# the endpoint as a whole
ENDPOINT: dict[str, Fault] = {
    "F01": Fault(GONE, "backend_unreachable", accept="refuse"),
    "F02": Fault(GONE, "backend_unreachable", accept="blackhole"),
    "F05.accept": Fault(GONE, "upstream_eof", accept="eof"),
    "F06.accept": Fault(GONE, "upstream_reset", accept="rst", or_code="backend_unreachable"),
}

# in the middle of an answer
STREAMS: dict[str, Fault] = {
    "F04.load": _good("fx-load:load-200"),
    "F04.slow": Fault("fx-slowhead", "timeout"),
    "F06.bighead": Fault("fx-bighead", "upstream_broken"),
    "F13.empty": Fault("fx-empty200", "upstream_eof"),
    "F14": Fault("fx-stall:n-5", "timeout", FIVE),
    "F15": Fault("fx-cutline:n-5", "upstream_truncated", FIVE),
    "F15.eof": Fault("fx-cutline:n-5_clean-0", "upstream_truncated", FIVE),
    "F16": Fault("fx-nodone:n-5", "upstream_eof", FIVE),
    "F16.eof": Fault("fx-eof:n-5", "upstream_eof", FIVE),
    "F17": Fault("fx-badjson:n-5", "malformed", FIVE),
    "F17.type": Fault("fx-wrongtype:n-5_k-2", "malformed", FIVE),
    "F17.deep": Fault("fx-deep:n-5", "malformed"),
    "F18": _good("fx-split"),
    "F18.slices": _good("fx-slicer:k-3"),
    "F18.invalid": Fault("fx-badutf8:n-5_at-2", "", WEIRD),
    "F19": _good("fx-unicode"),
    "F20": Fault("fx-bigline:mb-100", "line_too_long"),
    "F20.gzip": Fault("fx-gzip-bomb:mb-16", "upstream_broken"),
    "F21": _good("fx-longline:kb-600"),
    "F22": Fault("fx-errline:n-5", "upstream_error", FIVE),
    "F23": _good("fx-afterdone"),
    "F23.twice": _good("fx-twodone"),
    "F24": Fault("fx-endless:n-5", "budget_exceeded", None),
    "F26": Fault("fx-rst:n-5", "upstream_reset", None),
    "F27": Fault("fx-badframe", "upstream_broken"),
    "F27.chunk": Fault("fx-badchunk:n-5", "upstream_broken", FIVE),
    "F27.short": Fault("fx-longcl:n-5", "upstream_truncated", FIVE),
    "F27.pushed": _good("fx-pipeline"),
    "F28": _good("fx-staleka", primed=True),
}

# a download's own ways to fail
PULLS: dict[str, Fault] = {
    "F14": Fault("fx-pull-stall", "timeout"),
    "F22": Fault("fx-pull-err", "upstream_error"),
    "F22.disk": Fault("fx-pull-disk", "upstream_error"),
    "F26": Fault("fx-pull:cut-40", "upstream_reset"),
}

ANSWERS = ENDPOINT | REFUSALS | STREAMS
