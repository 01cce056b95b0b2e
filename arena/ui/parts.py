"""The page's own pieces of HTML: status lines, time bars, notices. Every word from outside is escaped here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Literal

from arena.types import Metrics, ModelInfo, PullJob
from arena.ui.remedies import remedy
from arena.ui.sessions import Turn

DASH = "\N{EN DASH}"
"""Stands for a figure that is not known."""

_ERRNO = re.compile(r"^\[Errno -?\d+\] ")
State = Literal["empty", "queued", "loading", "reading", "thinking", "writing", "done", "stopped", "failed"]
SILENT_S = 10.0
"""Silence in the middle of an answer that the page mentions, in seconds."""
LOADING_FROM_S = 0.5

_PHASES = (("queue", "queue"), ("load", "load"), ("prompt", "prompt"), ("generation", "answer"))


def size(count: int | None) -> str:
    """Bytes for people, in the decimal units that Ollama uses; a dash when unknown."""
    if not count:
        return DASH
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            value = count / factor
            return f"{value:.1f} {unit}" if value < 100 and unit == "GB" else f"{value:.0f} {unit}"
    return f"{count} B"


def seconds(value: float | None) -> str:
    """A span of time for people; a dash when unknown."""
    if value is None:
        return DASH
    if value >= 100:
        return f"{value / 60:.0f} min {value % 60:.0f} s" if value >= 120 else f"{value:.0f} s"
    return f"{value:.1f} s" if value >= 10 else f"{value:.2f} s"


def state_of(turn: Turn | None, now_s: float) -> State:
    """Where a column's latest answer is."""
    if turn is None:
        return "empty"
    reply = turn.reply
    if reply.error is not None:
        return "stopped" if reply.error.code == "stopped" else "failed"
    if reply.metrics is not None:
        return "done"
    if reply.text:
        return "writing"
    if reply.thinking:
        return "thinking"
    if reply.started_s is None:
        return "queued"
    waited_s = now_s - reply.started_s
    return "loading" if turn.in_memory is False and waited_s > LOADING_FROM_S else "reading"


def status(turn: Turn | None, now_s: float, scale_s: float = 0.0, control: str = "") -> str:
    """The status line of a column, with the time bar once the answer has ended; a full bar is `scale_s` seconds.

    `control` is what can be done then.
    """
    state = state_of(turn, now_s)
    live = state in ("queued", "loading", "reading", "thinking", "writing")
    if turn is None:
        body = '<span class="dim">Nothing asked yet</span>'
    elif live:
        body = _live(turn, state, now_s)
    else:
        body = control + _ended(turn, state, scale_s)
    return f'<div class="stat" data-state="{state}" data-live="{str(live).lower()}">{body}</div>'


def _word(state: State, text: str) -> str:
    return f'<span class="state"><i class="dot"></i>{escape(text)}</span>'


def _live(turn: Turn, state: State, now_s: float) -> str:
    reply = turn.reply
    since_s = reply.started_s if reply.started_s is not None else turn.asked_s
    clock = f"{max(0.0, now_s - since_s):.0f} s"
    words = {
        "queued": f"queued, after {turn.waits_for}" if turn.waits_for else "queued",
        "loading": "loading the model",
        "reading": "reading the prompt",
        "thinking": "thinking",
        "writing": "writing",
    }
    figures = [] if state == "queued" else [_figure(clock, "since the question was sent to the model")]
    said = len(reply.text) + len(reply.thinking)
    if said:
        figures.insert(0, _figure(f"{said:,} characters", "tokens are counted by the model and shown at the end"))
        figures.append(_first(reply.first_s, reply.started_s))
    silent_s = now_s - (turn.heard_s if turn.heard_s is not None else now_s)
    if said and silent_s >= SILENT_S:
        figures.append(f'<span class="fig warn">silent for {silent_s:.0f} s</span>')
    return _word(state, words[state]) + "".join(figures)


def _first(first_s: float | None, started_s: float | None) -> str:
    if first_s is None or started_s is None:
        return ""
    return _figure(f"first token {seconds(first_s - started_s)}", "time from the question to the first token")


def _figure(text: str, title: str = "") -> str:
    hint = f' title="{escape(title)}"' if title else ""
    return f'<span class="fig"{hint}>{escape(text)}</span>'


def _ended(turn: Turn, state: State, scale_s: float) -> str:
    metrics = turn.figures or Metrics()
    line = _word(state, state) + "".join(_figures(metrics)) + "".join(_flags(turn, metrics))
    return f'<div class="line">{line}</div>{time_bar(metrics, scale_s)}'


def _figures(metrics: Metrics) -> list[str]:
    figures: list[str] = []
    if metrics.tokens is not None:
        figures.append(
            _figure(f"{metrics.tokens:,} token{'' if metrics.tokens == 1 else 's'}", "as the model counts them")
        )
        figures.append(_rate(metrics))
    if metrics.ttft_s is not None:
        figures.append(_figure(f"first token {seconds(metrics.ttft_s)}", "time from the question to the first token"))
    late = metrics.first_visible_s
    if late is not None and metrics.ttft_s is not None and late - metrics.ttft_s >= 0.05:
        figures.append(
            _figure(f"first word {seconds(late)}", "time to the first token of the answer itself, after thinking")
        )
    return figures


def _rate(metrics: Metrics) -> str:
    if metrics.rate_reliable and metrics.tokens_per_sec is not None:
        return _figure(f"{metrics.tokens_per_sec:.1f} tokens/s", "generation only: without queue, load and prompt")
    return _figure(f"{DASH} tokens/s", unreliable_because(metrics))


def unreliable_because(metrics: Metrics) -> str:
    """Why a rate is not shown, in one sentence."""
    if metrics.tokens_per_sec is None:
        return "The server sent no counters to work it out from."
    if metrics.contended:
        return "Other answers ran on the same server meanwhile: the rate would measure them too. Run one after another."
    return "Too few tokens to measure a rate that means anything."


def _flags(turn: Turn, metrics: Metrics) -> list[str]:
    flags = (
        (metrics.contended, "shared", "Another answer ran on the same server meanwhile; times are not comparable."),
        (
            bool(metrics.prompt_cached),
            "cached prompt",
            "The server remembered (part of) the prompt, so its time is too short.",
        ),
        (metrics.cut_by_limit, "cut by limit", f"The answer was cut {cut_at(turn)}."),
    )
    return [f'<span class="flag" title="{escape(why)}">{escape(name)}</span>' for holds, name, why in flags if holds]


def cut_at(turn: Turn) -> str:
    """Where an answer was cut by its limit, as far as that is known."""
    most, metrics = turn.instance.options.num_predict, turn.figures
    if most is not None and metrics is not None and metrics.tokens == most:
        return f"at num_predict: {most:,} token{'' if most == 1 else 's'}"
    return "at the model's own limit or the end of its context"


def _spans(metrics: Metrics) -> tuple[float | None, ...]:
    return (metrics.queue_s, metrics.load_s, metrics.prompt_s, metrics.duration_s)


def length_s(metrics: Metrics | None) -> float:
    """How long the time bar of an answer is, in seconds; 0 when the server told nothing."""
    return 0.0 if metrics is None else sum(max(value, 0.0) for value in _spans(metrics) if value is not None)


def time_bar(metrics: Metrics, scale_s: float = 0.0) -> str:
    """Queue, load, prompt and generation as one bar with its numbers; empty when the server told none of them.

    All columns' bars share a scale, so that the eye compares them: a full bar is `scale_s` seconds.
    """
    spans = _spans(metrics)
    if (total := length_s(metrics)) <= 0:
        return ""
    parts, legend = [], []
    for (kind, label), value in zip(_PHASES, spans, strict=True):
        if value is None:
            continue
        parts.append(f'<i class="{kind}" style="flex-grow:{1000 * max(value, 0.0) / max(total, scale_s):.2f}"></i>')
        legend.append(f'<span class="{kind}">{label} {seconds(value)}</span>')
    if scale_s > total:
        parts.append(f'<i class="rest" style="flex-grow:{1000 * (scale_s - total) / scale_s:.2f}"></i>')
    text = escape(", ".join(f"{label} {seconds(value)}" for (_, label), value in zip(_PHASES, spans, strict=True)))
    bar = f'<div class="bar" role="img" aria-label="{text}">{"".join(parts)}</div>'
    return f'{bar}<div class="legend">{"".join(legend)}</div>'


def notice(turn: Turn | None, *, may_pull: bool) -> str:
    """The explanation of a failed answer, with its remedy; empty when all is well."""
    if turn is None or turn.reply.error is None or turn.reply.error.code == "stopped":
        return ""
    error = turn.reply.error
    how = remedy(error.code)
    button = ""
    if how.action == "pull" and may_pull:
        button = _button("pull", f"Pull {turn.instance.model}", "primary")
    elif how.action == "retry":
        button = _button("retry", "Try again")
    elif how.action == "settings":
        button = _button("settings", "Open settings")
    told = _ERRNO.sub("", error.details or "")
    details = f'<pre class="details">{escape(told)}</pre>' if told.lower() not in error.message.lower() else ""
    return (
        f'<div class="notice" role="alert"><p class="head"><b>{escape(how.headline)}</b> '
        f"<code>{escape(error.code)}</code></p>"
        f'<p>{escape(error.message)}</p>{details}<p class="dim">{_ticks(how.advice)}</p>{button}</div>'
    )


def pulling(job: PullJob) -> str:
    """The notice of a column whose missing model is on its way."""
    if job.state == "done":
        ask = _button("retry", "Ask it now", "primary")
        return f'<div class="notice good"><p><b>{escape(job.model)} is installed.</b></p>{ask}</div>'
    if job.state in ("failed", "cancelled"):
        why = escape(job.error or "The download was cancelled.")
        head = f"<p><b>The download of {escape(job.model)} ended</b></p>"
        return f'<div class="notice" role="alert">{head}<p>{why}</p>{_button("pull", "Try again")}</div>'
    return f'<div class="notice calm"><p><b>Pulling {escape(job.model)}</b></p>{progress(job)}</div>'


def progress(job: PullJob) -> str:
    """A download's progress bar with its numbers."""
    share = min(1.0, job.completed_bytes / job.total_bytes) if job.total_bytes else None
    percent = f"{share * 100:.0f} %" if share is not None else "…"
    numbers = (
        f"{size(job.completed_bytes)} of {size(job.total_bytes)}"
        if job.total_bytes
        else escape(job.status or "starting")
    )
    value = f' value="{share:.4f}" max="1"' if share is not None else ""
    return (
        f'<div class="progress"><progress aria-label="Download of {escape(job.model)}"{value}></progress>'
        f'<span class="fig">{percent}</span><span class="fig dim">{numbers}</span></div>'
    )


def _button(action: str, text: str, kind: str = "", **data: str) -> str:
    extra = "".join(f' data-{key}="{escape(value)}"' for key, value in data.items())
    return f'<button type="button" class="act {kind}" data-action="{action}"{extra}>{escape(text)}</button>'


def _ticks(text: str) -> str:
    """Escaped text in which `code` is code."""
    return "".join(
        f"<code>{escape(part)}</code>" if odd % 2 else escape(part) for odd, part in enumerate(text.split("`"))
    )


def picker_label(info: ModelInfo) -> str:
    """A model in the picker: its name first, then what sets it apart."""
    facts = [size(info.size_bytes)] if info.size_bytes else []
    facts += ["loaded"] if info.loaded_on else []
    return " · ".join([info.name, *facts])


def pinned_label(picked: str, loaded: bool) -> str:
    """A model on one endpoint in the picker."""
    return f"{picked} · loaded" if loaded else picked


Ability = Literal["yes", "no", "unknown"]


def can_think(info: ModelInfo | None) -> Ability:
    """Can a model think before it answers?"""
    if info is None or info.capabilities is None:
        return "unknown"
    return "yes" if "thinking" in info.capabilities else "no"


def facts_line(info: ModelInfo | None, settings: str) -> str:
    """The line under a column's picker: what the model is, and which settings are not its own."""
    abilities = info.capabilities or () if info is not None else ()
    facts: list[str] = []
    if info is not None:
        facts += [text for text in (info.parameter_size, info.quantization) if text]
        facts += [f"{_thousands(info.context_length)} context"] if info.context_length else []
        facts += [name for name in ("vision", "tools", "thinking") if name in abilities]
    chips = "".join(f'<span class="chip">{escape(fact)}</span>' for fact in facts)
    own = f'<span class="chip set" title="This column\'s settings">{escape(settings)}</span>' if settings else ""
    return f'<div class="facts">{chips}{own}</div>'


def _thousands(count: int) -> str:
    return f"{count // 1024}k" if count >= 1024 else str(count)


def examples(prompts: Sequence[tuple[str, str]]) -> str:
    """The example prompts as buttons; `prompts` are (title, prompt)."""
    chips = "".join(
        f'<button type="button" class="example" data-action="example" data-prompt="{escape(prompt)}" '
        f'title="{escape(prompt)}">{escape(title)}</button>'
        for title, prompt in prompts
    )
    return f'<div class="examples" aria-label="Example prompts">{chips}</div>'
