"""The shapes in which answers leave: lines of a stream, and the entries of a whole answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from arena.streaming import Reply
from arena.types import Batch, Delta, Failed, Finished, Manifest, Metrics, Started

_MICROSECONDS = 6


class TokenLine(Struct, frozen=True, gc=False):
    """A piece of an answer."""

    instance_id: str
    model: str
    token: str
    done: bool = False


class ThinkingLine(Struct, frozen=True, gc=False):
    """A piece of a model's thoughts; `token` is empty, so that a plain printer stays right."""

    instance_id: str
    model: str
    thinking: str
    token: str = ""
    done: bool = False


class LastLine(Struct, frozen=True, omit_defaults=True):
    """The end of one answer: its metrics, and the error it ended with, if any."""

    instance_id: str
    model: str
    token: str
    done: bool
    metrics: dict[str, Any]
    error: str | None = None
    error_code: str | None = None
    details: str | None = None
    manifest: Manifest | None = None
    options_sent: dict[str, Any] | None = None
    model_digest: str | None = None
    server: str | None = None
    history_truncated: bool = False


class Entry(Struct, frozen=True, omit_defaults=True):
    """One whole answer. `assistant` repeats `response` for the clients that look there."""

    model: str
    instance_id: str
    response: str
    assistant: str
    metrics: dict[str, Any]
    error: str | None
    error_code: str | None = None
    details: str | None = None
    thinking: str = ""
    manifest: Manifest | None = None
    options_sent: dict[str, Any] | None = None
    model_digest: str | None = None
    server: str | None = None


def metrics(figures: Metrics) -> dict[str, Any]:
    """The figures as clients index them: the seed's three always numbers, `rate_reliable` and `contended` always there.

    Without the endpoint's counters `duration_s` is the arena's own clock, and `wall_clock` says so.
    """
    fields: dict[str, Any] = {"tokens": 0, "duration_s": 0.0, "tokens_per_sec": 0.0}
    for name in Metrics.__struct_fields__:
        value = getattr(figures, name)
        if value is not None:
            fields[name] = round(value, _MICROSECONDS) if isinstance(value, float) else value
    fields["tokens_per_sec"] = round(fields["tokens_per_sec"], 2)
    if figures.duration_s is None and figures.total_s is not None:
        fields["duration_s"] = fields["total_s"]
        fields["wall_clock"] = True
    return fields


class Lines:
    """Turns batches of events into NDJSON. Holds only what the last lines need, never the request."""

    __slots__ = ("_encode_lines", "_history_truncated", "_manifests", "_models", "open")

    def __init__(self, models: dict[str, str], encoder: msgspec.json.Encoder, *, history_truncated: bool) -> None:
        self._models = models
        self._manifests: dict[str, Manifest] = {}
        self._history_truncated = history_truncated
        self._encode_lines = encoder.encode_lines
        self.open = len(models)

    def encoded(self, batch: Batch) -> bytes:
        """All complete lines of `batch`; empty when it holds nothing to tell."""
        lines: list[TokenLine | ThinkingLine | LastLine] = []
        models = self._models
        for event in batch:
            name = event.instance_id
            if type(event) is Delta:
                if event.thinking:
                    lines.append(ThinkingLine(name, models[name], event.thinking))
                if event.text:
                    lines.append(TokenLine(name, models[name], event.text))
            elif type(event) is Started:
                self._manifests[name] = event.manifest
            else:
                assert isinstance(event, Finished | Failed)
                self.open -= 1
                lines.append(self._last(event))
        return self._encode_lines(lines)

    def _last(self, event: Finished | Failed) -> LastLine:
        manifest = self._manifests.get(event.instance_id)
        failed = event if isinstance(event, Failed) else None
        return LastLine(
            event.instance_id,
            self._models[event.instance_id],
            "",
            True,
            metrics(event.metrics),
            error=failed.message if failed else None,
            error_code=failed.code if failed else None,
            details=failed.details if failed else None,
            manifest=manifest,
            options_sent=manifest.options_sent if manifest else None,
            model_digest=manifest.digest if manifest else None,
            server=manifest.endpoint if manifest else None,
            history_truncated=self._history_truncated,
        )


def entry(reply: Reply, model: str) -> Entry:
    """One answer, whole or failed; what was said before a failure is kept."""
    error, manifest = reply.error, reply.manifest
    figures = error.metrics if error else reply.metrics
    return Entry(
        model,
        reply.instance_id,
        reply.text,
        reply.text,
        metrics(figures or Metrics()),
        error.message if error else None,
        error_code=error.code if error else None,
        details=error.details if error else None,
        thinking=reply.thinking,
        manifest=manifest,
        options_sent=manifest.options_sent if manifest else None,
        model_digest=manifest.digest if manifest else None,
        server=manifest.endpoint if manifest else None,
    )


def errors(replies: Iterable[Reply]) -> dict[str, str]:
    """The texts of the answers that failed, by instance id."""
    return {reply.instance_id: reply.error.message for reply in replies if reply.error}
