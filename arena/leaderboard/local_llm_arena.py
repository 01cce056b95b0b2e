"""Exports of Local LLM Arena: a session of its version 4 or 3 with thumbs up and down, or a judged benchmark."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final

from arena.errors import BadRequest
from arena.leaderboard import incoming
from arena.leaderboard.incoming import MOST_SIDES, Comparison, Judged
from arena.types import Configuration

SOURCE: Final = "local-llm-arena"
MASKED: Final = "the models are masked: reveal them in Local LLM Arena, then export again"
_OPTIONS: Final = ("temperature", "top_p", "top_k", "repeat_penalty", "num_predict", "seed")
_THUMBS: Final = {"up": 1, "down": -1}


def fits(document: dict[str, Any]) -> bool:
    """Does it look like one?"""
    return document.get("app") == "Local LLM Arena" or ("modelInstances" in document and "history" in document)


def comparisons(document: dict[str, Any], now: str) -> Iterator[Comparison]:
    """What was judged; `now` stands in for a time that is not told. Raises BadRequest naming the key."""
    if "modelInstances" in document:
        return _session_3(document, now)
    if document.get("kind") == "benchmark":
        return _benchmark(document, now)
    return _session_4(document, now)


def _session_4(document: dict[str, Any], now: str) -> Iterator[Comparison]:
    """Only answers with a thumb are compared, as its own ratings do. A blind session takes none after the reveal."""
    blind = incoming.row(document.get("blind", {}), "blind")
    hidden = bool(blind.get("enabled"))
    if hidden and not blind.get("revealed"):
        raise BadRequest(MASKED)
    at = incoming.moment(document.get("exportedAt", now), "exportedAt")
    known = _instances(document.get("models"), "models")
    prompts: list[str] = []
    for place, turn in enumerate(incoming.rows(document.get("turns"), "turns")):
        key = f"turns[{place}]"
        prompts.append(incoming.text(turn.get("prompt"), f"{key}.prompt"))
        sides = []
        for index, answer in enumerate(incoming.rows(turn.get("responses"), f"{key}.responses", MOST_SIDES)):
            here = f"{key}.responses[{index}]"
            thumb = incoming.number(answer.get("vote", 0), f"{here}.vote")
            who = incoming.name(answer.get("model"), f"{here}.model")
            if thumb and not answer.get("error"):
                said = incoming.text(answer.get("text"), f"{here}.text")
                sides.append(Judged(known.get(who) or incoming.configuration(who), (said,), thumb))
        yield Comparison(SOURCE, at, (prompts[-1],), tuple(sides), blind=hidden)


def _session_3(document: dict[str, Any], now: str) -> Iterator[Comparison]:
    """Its thumbs do not say which answer they are about: those of a session are one comparison of all it has said."""
    blind = incoming.row(document.get("blindMode", {}), "blindMode")
    if blind and not blind.get("revealed"):
        raise BadRequest(MASKED)
    known = _instances(document.get("modelInstances"), "modelInstances")
    mapping = incoming.row(blind.get("mapping", {}), "blindMode.mapping")
    labels = {incoming.text(label, f"blindMode.mapping.{who[:80]}"): who for who, label in mapping.items()}
    scores, last_ms = _thumbs(incoming.row(blind.get("votes", {}), "blindMode.votes"))
    prompts, answers = _told(document)
    sides = []
    for label, score in sorted(scores.items()):
        if label not in labels:
            raise BadRequest(f"blindMode.mapping tells nobody who is called {label[:40]!r}")
        who = incoming.name(labels[label], "blindMode.mapping")
        sides.append(Judged(known.get(who) or incoming.configuration(who), tuple(answers.get(who, ())), score))
    if len(sides) > MOST_SIDES:
        raise BadRequest(f"blindMode.votes are about more than {MOST_SIDES} models")
    at = incoming.moment(last_ms / 1000 if last_ms else document.get("exportedAt", now), "exportedAt")
    yield Comparison(SOURCE, at, prompts, tuple(sides), blind=True)


def _thumbs(votes: Mapping[str, Any]) -> tuple[dict[str, float], float]:
    """How each label was found altogether, and when the last thumb was given, in milliseconds."""
    scores: dict[str, float] = defaultdict(float)
    last_ms = 0.0
    for name, value in votes.items():
        key = f"blindMode.votes.{name[:80]}"
        vote = incoming.row(value, key)
        if vote.get("vote") is None:  # taken back
            continue
        if vote["vote"] not in tuple(_THUMBS):
            raise BadRequest(f"{key}.vote must be up or down")
        scores[incoming.text(vote.get("blindLabel"), f"{key}.blindLabel")] += _THUMBS[vote["vote"]]
        at_ms = incoming.number(vote.get("timestamp", 0), f"{key}.timestamp")
        if not 0 <= at_ms < incoming.END_S * 1000:
            raise BadRequest(f"{key}.timestamp must be milliseconds since 1970, before the year 2100")
        last_ms = max(last_ms, at_ms)
    return scores, last_ms


def _told(document: dict[str, Any]) -> tuple[tuple[str, ...], dict[str, list[str]]]:
    """The prompts, and what each instance answered."""
    prompts: list[str] = []
    answers: dict[str, list[str]] = defaultdict(list)
    for place, message in enumerate(incoming.rows(document.get("history"), "history")):
        said = incoming.text(message.get("content"), f"history[{place}].content")
        if message.get("role") == "user":
            prompts.append(said)
        elif message.get("role") == "assistant":
            answers[str(message.get("instance_id") or message.get("model"))].append(said)
    return tuple(prompts), answers


def _benchmark(document: dict[str, Any], now: str) -> Iterator[Comparison]:
    """The scores that a model gave, from 0 to 10; not blind, since nobody hid anything from anybody."""
    at = incoming.moment(document.get("generatedAt", now), "generatedAt")
    for place, result in enumerate(incoming.rows(document.get("results"), "results")):
        key = f"results[{place}]"
        prompt = incoming.text(result.get("prompt"), f"{key}.prompt")
        answers = incoming.row(result.get("answers"), f"{key}.answers")
        mapping = incoming.row(result.get("mapping") or {}, f"{key}.mapping")
        sides = []
        for index, verdict in enumerate(incoming.rows(result.get("verdicts") or [], f"{key}.verdicts", MOST_SIDES)):
            here = f"{key}.verdicts[{index}]"
            answer = answers.get(str(mapping.get(str(verdict.get("label")))))
            if answer is None:
                raise BadRequest(f"{here}.label must be one that mapping leads to an answer")
            told = incoming.row(answer, f"{key}.answers")
            who = incoming.configuration(incoming.name(told.get("model"), f"{key}.answers.model"))
            said = incoming.text(told.get("text"), f"{key}.answers.text")
            sides.append(Judged(who, (said,), incoming.number(verdict.get("score"), f"{here}.score")))
        yield Comparison(SOURCE, at, (prompt,), tuple(sides), voter=f"{SOURCE}: judge")


def _instances(given: Any, key: str) -> dict[str, Configuration]:
    """Contestants by the ids under which the rest speaks of them."""
    found = {}
    for place, each in enumerate(incoming.rows(given, key)):
        settings = incoming.row(each.get("hyperparameters", each), f"{key}[{place}].hyperparameters")
        sent = {name: settings[name] for name in _OPTIONS if isinstance(settings.get(name), int | float)}
        model = incoming.name(each.get("model"), f"{key}[{place}].model")
        found[incoming.name(each.get("id"), f"{key}[{place}].id")] = incoming.configuration(model, sent)
    return found
