"""Which tokens a scenario says: most say the oracle's, some say something hostile."""

from __future__ import annotations

from collections.abc import Callable

from tests.fake_ollama.oracle import text_of, tokens_of
from tests.fake_ollama.payloads import EXFIL, XSS
from tests.fake_ollama.plan import Plan

UNICODE = (
    "a\u0085b", "\u2028", "\u2029x", "\x00", "\u001f\t\r\n", "<b>&amp;</b>", "🙂", "👩‍🚀👨‍👩‍👧‍👦", "\u202eRTL\u202c",
    "שלום עולם", "e\u0301", "\ufeff", '"\\/', "\u200b\u200d", "\U0010ffff", "𝛑" * 16384,
)  # fmt: skip
ANSI = (
    "\x1b[2J", "\x1b]0;owned\x07", "\x1b[31mred\x1b[0m", "\x00", "\r\n2026-01-01 INFO forged line\n", "\x9b5m", "\x7f",
)  # fmt: skip
CUT_IN_MIDSTREAM = frozenset(
    ("stall", "cutline", "nodone", "errline", "badjson", "badutf8", "eof", "rst", "wrongtype", "badchunk")
)


def said_by(plan: Plan, canary_url: str = "http://127.0.0.1:9") -> tuple[str, ...]:
    """The tokens that `plan` would say without any limit."""
    special = _SPECIAL.get(plan.scenario)
    if special is not None:
        return special(plan, canary_url)
    return tokens_of(_count(plan), plan.number("seed", 1), plan.number("size", 0) or None)


def _count(plan: Plan) -> int:
    """How many tokens: `n`, but where `n` names the place of the fault there are some left after it."""
    if plan.scenario in CUT_IN_MIDSTREAM and not ("n" in plan.keys and "at" in plan.keys):
        return max(20, plan.at + 5)
    return plan.number("n", 20)


def _longline(plan: Plan, _canary: str) -> tuple[str, ...]:
    return (*tokens_of(2), text_of(1, plan.number("seed", 1), plan.number("kb", 600) * 1024))


def _many(plan: Plan, _canary: str) -> tuple[str, ...]:
    return tokens_of(plan.number("n", 100_000), plan.number("seed", 1))


def _xss(plan: Plan, _canary: str) -> tuple[str, ...]:
    return ("before ", XSS[plan.number("k", 0) % len(XSS)], " after")


def _exfil(plan: Plan, canary: str) -> tuple[str, ...]:
    return ("before\n\n", EXFIL[plan.number("k", 0) % len(EXFIL)].replace("CANARY", canary), "\n\nafter")


_SPECIAL: dict[str, Callable[[Plan, str], tuple[str, ...]]] = {
    "unicode": lambda plan, canary: UNICODE,
    "ansi": lambda plan, canary: ANSI,
    "ident": lambda plan, canary: ("I am ", plan.model, ", a large language model", " made by Fake & Co."),
    "empty": lambda plan, canary: (),
    "longline": _longline,
    "manytokens": _many,
    "xss": _xss,
    "exfil": _exfil,
}
