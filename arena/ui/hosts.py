"""The hosts as the page draws them: how each stands in plain words, its figures, what it holds in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Literal

from msgspec import Struct

from arena.fleet import Endpoint, Fleet
from arena.fleet.book import Counts
from arena.types import LoadedModel
from arena.ui import parts
from arena.ui.catalog import action

MAX_WEIGHT = 1000
"""The heaviest share that a fleet file may give."""
FOREVER_S = 365 * 86400.0
"""A model that stays longer than this stays until it is unloaded."""

KINDS = {"ollama": "Ollama", "openai": "OpenAI-compatible", "engine": "Embedded engine"}
State = Literal["healthy", "full", "checking", "trial", "resting", "open", "draining", "down"]
WORDS: Mapping[State, str] = {
    "healthy": "healthy",
    "full": "full",
    "checking": "not asked yet",
    "trial": "on trial",
    "resting": "resting",
    "open": "breaker open",
    "draining": "draining",
    "down": "down",
}
ABLE: frozenset[State] = frozenset({"healthy", "full", "trial"})
"""Those that are given work, now or as soon as there is a place."""


class Moment(Struct, frozen=True):
    """Now, in seconds on the fleet's clock, and `epoch_s`, which brings such a time to seconds since 1970."""

    now_s: float
    epoch_s: float

    def wall(self, at_s: float) -> int:
        """A time on the fleet's clock in whole seconds since 1970."""
        return round(at_s + self.epoch_s)


class Standing(Struct, frozen=True):
    """How a host stands. `why` and `since` are HTML, and empty where there is nothing to explain."""

    state: State
    why: str = ""
    since: str = ""


def clock(form: Literal["ago", "since", "for", "in"], at: int) -> str:
    """A moment (seconds since 1970) that the browser tells as "3 s ago", "for 3 s" (since or until then) or "in 3 s".

    The text is the browser's, so that what has not changed need not be sent again as time goes by.
    """
    told = datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
    return f'<time datetime="{told}" data-{form}="{at}"></time>'


def standing(endpoint: Endpoint, at: Moment) -> Standing:
    """How `endpoint` stands; of several things that are true the one that keeps work away from it."""
    health, breaker = endpoint.health, endpoint.breaker
    if endpoint.draining:
        left = f"; {endpoint.in_flight} still under way" if endpoint.in_flight else ""
        return Standing("draining", f"No new work until it serves again{left}")
    if not health.up:
        reason = escape(endpoint.error or f"{endpoint.name} takes no connections")
        return Standing("down", reason, clock("since", at.wall(health.since_s)))
    if breaker.state != "closed":
        failed = f"{breaker.failures} failures in a row"
        if breaker.state == "open" and not breaker.admits(at.now_s):
            return Standing("open", f"{failed}; tried again {clock('in', at.wall(breaker.open_until_s))}")
        return Standing("trial", f"{failed}; the next request decides")
    if at.now_s < endpoint.rests_until_s:
        return Standing("resting", f"Asks to be left alone {clock('for', at.wall(endpoint.rests_until_s))}")
    doubt = f"The last check failed: {escape(endpoint.error)}" if endpoint.error else ""
    if resting := {model: until_s for model, until_s in endpoint.resting.items() if at.now_s < until_s}:
        waits = ", ".join(f"{escape(model)} {clock('for', at.wall(until_s))}" for model, until_s in resting.items())
        doubt += f"{'; a' if doubt else 'A'}sks to be left alone with {waits}"
    if health.state == "unknown":
        return Standing("checking", doubt)
    return Standing("healthy" if endpoint.has_room else "full", doubt)


def host_cards(
    fleet: Fleet, counted: Mapping[str, Counts], at: Moment, *, may_manage: bool, can_reload: bool, complaint: str = ""
) -> str:
    """The head of the tab and a card for each host. `complaint`: why the fleet file could not be read again."""
    endpoints = fleet.endpoints
    stands = [standing(endpoint, at) for endpoint in endpoints]
    reload = action("reload", "Reload the fleet file") if may_manage and can_reload else ""
    head = (
        f'<header class="sheet-head with-action"><div><h2>Fleet</h2><p class="dim" role="status">'
        f"{_summary(stands)}</p></div>{reload}</header>"
    )
    wrong = (
        f'<div class="notice" role="alert"><p><b>The fleet file was not taken over; the fleet stays as it was.</b></p>'
        f"<p>{escape(complaint)}</p></div>"
        if complaint
        else ""
    )
    cards = "".join(
        _card(number, endpoint, one, counted.get(endpoint.name) or Counts(), at, may_manage, len(endpoints) > 1)
        for number, (endpoint, one) in enumerate(zip(endpoints, stands, strict=True))
    )
    return f'{head}{wrong}{_totals(fleet, counted)}<div class="hosts">{cards}</div>{_hint(endpoints)}'


def _summary(stands: Sequence[Standing]) -> str:
    """How many hosts take work, and what is with the others."""
    others = Counter(one.state for one in stands if one.state not in ABLE)
    count, able = len(stands), len(stands) - others.total()
    if not count:
        return "No host yet."
    if not others:
        return f"All {count} hosts take work." if count > 1 else "The only host takes work."
    if count == 1:
        return f"The only host takes no work: {WORDS[stands[0].state]}."
    told = ", ".join(f"{number} {WORDS[state]}" for state, number in others.items())
    return f"{able} of {count} hosts take work: {told}."


def _totals(fleet: Fleet, counted: Mapping[str, Counts]) -> str:
    """What all hosts together do and did."""
    if not fleet.endpoints:
        return ""
    sums = Counts()
    for counts in counted.values():
        sums.add(counts)
    waiting, places = fleet.queue.waiting, fleet.queue.spec.max_waiting
    went = [f"{sums.failed_requests:,} failed"] if sums.failed_requests else []
    went += [f"{sums.retries:,} tried again"] if sums.retries else []
    rows = (
        ("Under way", f"{sum(endpoint.in_flight for endpoint in fleet.endpoints):,}", ""),
        ("Waiting", f"{waiting:,}", f"of {places:,} places" if waiting else ""),
        ("Requests", f"{sums.requests:,}", ", ".join(went)),
        ("Tokens", count(sums.completion_tokens), _from(sums)),
        ("Median first token", span(sums.first.quantile(0.5)), ""),
        ("Strategy", escape(fleet.spec.strategy), ""),
    )
    return f'<dl class="figures totals">{"".join(_figure(*row) for row in rows)}</dl>'


def _figure(name: str, value: str, note: str = "", more: str = "") -> str:
    told = f'<span class="dim">{note}</span>' if note else ""
    return f"<div><dt>{name}</dt><dd>{value} {told}{more}</dd></div>"


def _hint(endpoints: Sequence[Endpoint]) -> str:
    """What to do where nothing but this machine itself serves."""
    if any(endpoint.kind != "engine" for endpoint in endpoints):
        return ""
    first = (
        "Only the embedded engine serves. Other servers can stand beside it."
        if endpoints
        else "No model server is known, and the embedded engine is not running."
    )
    return (
        f'<div class="notice calm"><p><b>{first}</b></p>'
        "<p>Start Ollama on this machine (<code>ollama serve</code>) and restart the arena, or name the servers: "
        "<code>ARENA_ENDPOINTS=http://gpu1:11434,big=http://gpu2:11434</code>. Limits, weights and credentials for "
        "each go into a fleet file, <code>fleet.yaml</code> in the arena's data folder.</p>"
        '<p class="dim">The guide to it is <code>docs/fleet.md</code> of the arena; '
        "<code>python -m arena fleet check</code> shows what a fleet file finds before it serves.</p></div>"
    )


# ---- one host


def _card(
    number: int, endpoint: Endpoint, one: Standing, counts: Counts, at: Moment, may_manage: bool, several: bool
) -> str:
    name = escape(endpoint.name)
    drained = one.state == "draining" and not endpoint.in_flight
    word = "drained" if drained else WORDS[one.state]
    why = f'<p class="why">{one.why}</p>' if one.why else ""
    facts = [KINDS[endpoint.kind] + (f" {escape(endpoint.version)}" if endpoint.version else "")]
    if endpoint.heard:
        facts.append(f"{len(endpoint.holds)} model{'' if len(endpoint.holds) == 1 else 's'}")
    return (
        f'<article class="host" data-state="{one.state}" aria-labelledby="host-{number}">'
        f'<header><h3 id="host-{number}">{name}</h3>'
        f'<span class="state"><i class="dot"></i>{word} {one.since}</span>{_lever(endpoint, may_manage)}</header>'
        f'<p class="dim">{" · ".join(facts)} · <code>{escape(endpoint.url)}</code></p>{why}'
        f'<dl class="figures">{_figures(endpoint, counts, may_manage and several)}</dl>'
        f"{_memory(endpoint, at, may_manage)}</article>"
    )


def _lever(endpoint: Endpoint, may_manage: bool) -> str:
    if not may_manage:
        return ""
    name = "serve" if endpoint.draining else "drain"
    text = "Serve again" if endpoint.draining else "Drain"
    return action(name, text, label=f"{text}: {endpoint.name}", endpoint=endpoint.name)


def _figures(endpoint: Endpoint, counts: Counts, may_weigh: bool) -> str:
    cap = endpoint.spec.max_in_flight
    share = min(1.0, endpoint.in_flight / cap) if cap else 0.0
    bar = f'<span class="fill" aria-hidden="true"><i style="width:{share:.0%}"></i></span>' if cap else ""
    weight = _weight(endpoint) if may_weigh else f"{endpoint.weight:g}"
    return (
        _figure("Under way", f"{endpoint.in_flight:,}", f"of {cap:,}" if cap else "no limit", bar)
        + _figure("Requests", f"{counts.attempts:,}", f"{counts.failures:,} failed" if counts.failures else "")
        + _figure("Tokens", count(counts.completion_tokens), _from(counts))
        + _figure("Median first token", span(counts.first.quantile(0.5)))
        + _figure("Weight", weight)
    )


def _from(counts: Counts) -> str:
    return f"from {count(counts.prompt_tokens)}" if counts.prompt_tokens else ""


def _weight(endpoint: Endpoint) -> str:
    name = escape(endpoint.name)
    return (
        f'<form data-form="weight" data-endpoint="{name}"><input name="value" type="number" min="0.01" '
        f'max="{MAX_WEIGHT}" step="any" required value="{endpoint.weight:g}" aria-label="Weight of {name}" '
        f'title="Its share of the work: twice the weight is twice the work"></form>'
    )


def _memory(endpoint: Endpoint, at: Moment, may_manage: bool) -> str:
    """What is in its memory: how much, how much of it on a GPU, and for how long still."""
    held = () if endpoint.health.state == "offline" else endpoint.in_memory
    if not held:
        nothing = "Nothing in memory." if endpoint.health.up else "What is in its memory is not known."
        return f'<p class="held dim">{nothing}</p>' if endpoint.native else ""
    rows = "".join(_held(item, endpoint, at, may_manage) for item in held)
    return f'<ul class="held" aria-label="In the memory of {escape(endpoint.name)}">{rows}</ul>'


def _held(item: LoadedModel, endpoint: Endpoint, at: Moment, may_manage: bool) -> str:
    share = f"{item.vram_bytes / item.size_bytes:.0%} on GPU" if item.size_bytes and item.vram_bytes else "on CPU"
    facts = [parts.size(item.size_bytes), share] if item.size_bytes else []
    facts += [stays] if (stays := _stays(item.expires_at, at)) else []
    free = ""
    if may_manage and endpoint.native:
        label = f"Unload {item.name} from {endpoint.name}"
        free = action("unload", "Unload", model=item.name, endpoint=endpoint.name, label=label)
    return f'<li><span><b>{escape(item.name)}</b> <span class="dim">{" · ".join(facts)}</span></span>{free}</li>'


def _stays(expires_at: str, at: Moment) -> str:
    """How long a model stays, for the browser to tell; empty where the host does not say."""
    try:
        until = datetime.fromisoformat(expires_at).timestamp()
    except (ValueError, OverflowError):
        return ""
    left_s = until - at.wall(at.now_s)
    if left_s > FOREVER_S:
        return "until unloaded"
    return clock("for", round(until)) if left_s > -FOREVER_S else ""  # the year 1 is Go's way to say nothing


# ---- figures for people


def span(value: float | None) -> str:
    """A span of seconds for people, in milliseconds below one; a dash when unknown."""
    return f"{1000 * value:.0f} ms" if value is not None and value < 1 else parts.seconds(value)


def count(value: int) -> str:
    """A count for people: 9,500, 12.3k, 4.1M."""
    for unit, factor, least in (("M", 1e6, 1e6), ("k", 1e3, 1e4)):
        if value >= least:
            return f"{value / factor:.1f}{unit}" if value < 100 * factor else f"{value / factor:.0f}{unit}"
    return f"{value:,}"
