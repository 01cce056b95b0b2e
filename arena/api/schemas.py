"""The shapes of requests and answers, by feature, as JSON Schema. Those of the core's values are derived from them."""

from __future__ import annotations

from typing import Any

import msgspec

from arena.api import fields
from arena.api.kept import Deleted
from arena.api.leaderboard import Ladders, Timeline
from arena.battle import BattleView
from arena.kept import FORMAT, MAX_NAME, KeptError, KeptFile, KeptTitle
from arena.leaderboard import FORMATS, Board, Matrix
from arena.types import EndpointStatus, LoadedModel, Manifest, ModelInfo, PullJob

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}


def reference(name: str) -> Schema:
    """A pointer to the schema called `name`."""
    return {"$ref": f"#/components/schemas/{name}"}


def schemas() -> dict[str, Schema]:
    """Every schema by name."""
    _, derived = msgspec.json.schema_components(
        [
            *(Manifest, ModelInfo, LoadedModel, EndpointStatus, PullJob, BattleView, Board, Matrix, Ladders, Timeline),
            *(KeptTitle, KeptFile, KeptError, Deleted),
        ],
        ref_template="#/components/schemas/{name}",
    )
    compare = _questions() | _answers()
    return derived | compare | _kept() | _battles() | _votes() | _exports() | _models() | _endpoints()


def _questions() -> dict[str, Schema]:
    return {
        "Message": _object(
            {
                "role": {"enum": ["system", "user", "assistant", "tool"]},
                "content": STRING,
                "images": _list(STRING, "Bare base64."),
                "thinking": STRING,
            },
            required=("role", "content"),
            more="Other keys, such as tool_calls, are passed on unchanged.",
        ),
        "ModelInstance": _object(_instance(), required=("model",)),
        "ChatRequest": _object(
            {
                "history": _list(reference("Message")),
                "model_instances": _list(reference("ModelInstance"), "Wins over `models` unless empty."),
                "models": {
                    **_list(STRING, "Model names, run with each model's own defaults. Kept for older clients."),
                    "deprecated": True,
                },
                "order": {
                    "enum": ["together", "one_after_another"],
                    "default": "together",
                    "description": "One after another keeps the figures of one instance from disturbing another's.",
                },
                "stream": {**FLAG, "description": "Ignored: the route decides."},
            },
            required=("history",),
        ),
    }


def _instance() -> dict[str, Schema]:
    numbers = {p.name: _parameter(p) for p in fields.PARAMETERS}
    return {
        "id": {
            **STRING,
            "maxLength": fields.MAX_ID_CHARACTERS,
            "description": "Unique in the request, opaque, echoed. Left out: "
            "`{model}__{temperature}_{top_p}_{top_k}_{repeat_penalty}_{num_predict}_{seed}`.",
        },
        "model": STRING,
        **numbers,
        "stop": _list(STRING, "Texts at which the answer ends."),
        "think": {"enum": [True, False, *fields.THINK_LEVELS, None]},
        "system": {**STRING, "description": "Takes the place of the history's system messages for this instance."},
        "endpoint": {**STRING, "description": "A name from /api/endpoints; left out, the server chooses."},
    }


def _parameter(parameter: fields.Parameter) -> Schema:
    schema: Schema = {
        "type": ["integer" if parameter.whole else "number", "null"],
        "minimum": parameter.low,
        "maximum": parameter.high,
        "description": f"{parameter.text()}. null: the model's own default.",
    }
    if parameter.default is not None:
        schema["default"] = parameter.default
    return schema


def _answers() -> dict[str, Schema]:
    entry = {
        "model": STRING,
        "instance_id": STRING,
        "response": {**STRING, "description": "The answer; what was said before a failure is kept."},
        "assistant": {**STRING, "description": "The same as `response`."},
        "thinking": STRING,
        "metrics": reference("Metrics"),
        "error": {"type": ["string", "null"]},
        "error_code": STRING,
        "details": STRING,
        "manifest": reference("Manifest"),
        "options_sent": {"type": "object"},
        "model_digest": {"type": ["string", "null"]},
        "server": STRING,
    }
    top = {
        "errors": {"type": "object", "additionalProperties": STRING, "description": "Failures by instance id."},
        "history_truncated": {**FLAG, "description": "Older messages were left out to keep to the limit."},
    }
    core = ("model", "instance_id", "response", "assistant", "metrics", "error")
    return {
        "Error": _object({"error": STRING, "code": STRING, "details": STRING}, required=("error", "code")),
        "Metrics": _metrics(),
        "Answer": _object(entry, required=core),
        "OneAnswer": _object(entry | top, required=(*core, *top)),
        "SeveralAnswers": _object(
            {"results": {"type": "object", "additionalProperties": reference("Answer")}, **top},
            required=("results", *top),
        ),
        "ChatAnswer": {"oneOf": [reference("OneAnswer"), reference("SeveralAnswers")]},
        "StreamLine": _object(
            {
                "instance_id": STRING,
                "model": STRING,
                "token": {**STRING, "description": "A piece of the answer; empty on the last line."},
                "thinking": STRING,
                "done": FLAG,
                **{name: entry[name] for name in ("metrics", "error_code", "details", "manifest")},
                "error": STRING,
                "options_sent": {"type": "object"},
                "model_digest": STRING,
                "server": STRING,
                "history_truncated": FLAG,
            },
            required=("instance_id", "model", "token", "done"),
        ),
    }


def _metrics() -> Schema:
    seconds = {
        "ttft_s": "First piece of any kind, on the arena's clock.",
        "first_visible_s": "First piece of the answer itself, on the arena's clock.",
        "total_s": "The whole answer, on the arena's clock.",
        "server_total_s": "The whole answer, by the endpoint's counters.",
        "load_s": "Loading the model.",
        "queue_s": "Waiting at the endpoint.",
        "prompt_s": "Reading the prompt.",
    }
    return _object(
        {
            "tokens": {**COUNT, "description": "Generated tokens, by the endpoint's counters; 0 where unknown."},
            "duration_s": {**NUMBER, "description": "Generation time by the endpoint's counters; see `wall_clock`."},
            "tokens_per_sec": {**NUMBER, "description": "tokens / duration_s; 0 where unknown."},
            "rate_reliable": {
                **FLAG,
                "description": "False below 16 tokens, under 1 ms, without counters or under contention.",
            },
            "contended": {**FLAG, "description": "Another generation ran on the same endpoint meanwhile."},
            "wall_clock": {**FLAG, "description": "duration_s is the arena's own clock: there were no counters."},
            **{name: {**NUMBER, "description": text} for name, text in seconds.items()},
            "prompt_tokens": COUNT,
            "prompt_cached": {**FLAG, "description": "The prompt's cost was (partly) saved by the endpoint's cache."},
            "done_reason": STRING,
            "cut_by_limit": {**FLAG, "description": "The answer ended at num_predict or at the context's end."},
        },
        required=("tokens", "duration_s", "tokens_per_sec", "rate_reliable", "contended"),
    )


def _kept() -> dict[str, Schema]:
    preset = {
        "model_instances": _list(reference("ModelInstance"), "Who stands in the columns."),
        "system": {**STRING, "description": "The system prompt of all columns without one of their own."},
        "order": {"enum": ["together", "one_after_another"], "default": "together"},
    }
    conversation = {
        "title": {**STRING, "maxLength": MAX_NAME, "description": "The first words of the prompt, if left out."},
        "format": {"const": FORMAT},
        "columns": _list(_object({"id": STRING, "turns": _list(reference("KeptTurn"))}, required=("id", "turns"))),
    }
    instance = {"id": STRING, "model": STRING, "options": {"type": "object"}, "system": STRING, "endpoint": STRING}
    turn = {
        "prompt": {**STRING, "description": "As it was typed."},
        "sent_prompt": {**STRING, "description": "As the model got it, with the text of attached files."},
        "attachments": _list(reference("KeptFile")),
        "instance": _object(instance, required=("id", "model"), more="The model with what was sent to it."),
        "answer": STRING,
        "thinking": STRING,
        "complete": {**FLAG, "description": "Did the answer end well?"},
        "error": {"anyOf": [reference("KeptError"), {"type": "null"}]},
        "metrics": {"type": ["object", "null"], "description": "As in Metrics, but what is unknown is left out."},
        "manifest": {"anyOf": [reference("Manifest"), {"type": "null"}]},
    }
    name: Schema = {**STRING, "minLength": 1, "maxLength": MAX_NAME}
    told = {"id": STRING, "kept_at": STRING} | conversation
    return {
        "PresetRequest": _object(preset, required=("model_instances",), more="`models` is read as by /api/chat."),
        "Preset": _object({"name": name} | preset, required=("name", *preset)),
        "Presets": _object({"presets": _list(reference("Preset"))}, required=("presets",)),
        "KeptTurn": _object(turn, required=tuple(turn)),
        "ConversationRequest": _object(conversation, required=("columns",), more="Other keys are ignored."),
        "Conversation": _object(told, required=tuple(told)),
        "Conversations": _object({"conversations": _list(reference("KeptTitle"))}, required=("conversations",)),
    }


def _battles() -> dict[str, Schema]:
    return {
        "BattleRequest": _object(
            {
                "models": _list(STRING, "Who may be drawn. Without this all installed models are."),
                "model_instances": _list(reference("ModelInstance"), "The same with settings; wins over `models`."),
                "category": {**STRING, "maxLength": 40, "description": "What the battle is about, such as coding."},
                "tags": _list({**STRING, "maxLength": 40}),
                "sides": {"type": "integer", "minimum": 2, "maximum": 4, "default": 2},
                "mode": {
                    "enum": ["installed", "chosen", "newcomers"],
                    "description": "Follows from whether models are named, unless it is newcomers: one model with few "
                    "votes against some of the best.",
                },
            },
            more="The server draws who fights and who is a; a request cannot choose it.",
        ),
        "TurnRequest": _object({"message": STRING}, required=("message",)),
        "TurnLine": _object(
            {
                "instance_id": {"enum": ["a", "b", "c", "d"]},
                "token": {**STRING, "description": "A piece of the answer; empty on the last line."},
                "done": FLAG,
                "error": STRING,
                "error_code": STRING,
            },
            required=("instance_id", "token", "done"),
        ),
        "VoteRequest": _object(
            {
                "verdict": {"enum": ["a", "b", "tie", "both_bad"]},
                "ranks": {
                    "type": "object",
                    "additionalProperties": {"type": "integer", "minimum": 1, "maximum": 4},
                    "description": "The place of each side, 1 being the best; equal places are ties.",
                },
            },
            more="Either a verdict or ranks. Of more than two sides only tie and both_bad can be said as a verdict.",
        ),
    }


def _votes() -> dict[str, Schema]:
    return {
        "DirectVote": _object(
            {
                "prompt": STRING,
                "answers": _list(reference("JudgedAnswer"), "Two or more; those with an error are left out."),
                "best": {**STRING, "description": "The `instance_id` of the best one."},
            },
            required=("prompt", "answers", "best"),
        ),
        "JudgedAnswer": _object(
            {
                "model": STRING,
                "instance_id": {**STRING, "description": "The model's name, if left out."},
                "response": STRING,
                "system": {**STRING, "description": "The system prompt that this instance had of its own."},
                "error": {"type": ["string", "null"]},
                "metrics": reference("Metrics"),
                "manifest": reference("Manifest"),
            },
            required=("model", "response"),
            more="An answer as /api/chat gives it; other keys are ignored.",
        ),
        "VotesFile": {"type": "object", "description": "One vote a line, or the whole file of another program."},
        "VotesImported": _object(
            {"format": {"enum": list(FORMATS)}, "new": COUNT, "known": {**COUNT, "description": "Here already."}},
            required=("format", "new", "known"),
        ),
        "VotesKept": _object({"votes": COUNT}, required=("votes",)),
    }


def _exports() -> dict[str, Schema]:
    conversation = _list(reference("Message"))
    return {
        "VoteRow": _object(
            {
                "question_id": STRING,
                "model_a": STRING,
                "model_b": STRING,
                "winner": {"enum": ["model_a", "model_b", "tie", "tie (bothbad)"]},
                "judge": {**STRING, "description": "A pseudonym of the voter."},
                "turn": COUNT,
                "anony": {**FLAG, "description": "Were the models unknown before the vote?"},
                "tstamp": {**NUMBER, "description": "Seconds since 1970."},
                "pair": {**STRING, "description": "The letters of the two sides; a ranking is a row for each pair."},
                "sides": COUNT,
                "source": {**STRING, "description": "Where an imported vote comes from; else empty."},
                "conversation_a": conversation,
                "conversation_b": conversation,
            },
            required=("question_id", "model_a", "model_b", "winner", "judge", "turn", "anony", "tstamp"),
            more="Also configurations, category, tags, and what was counted of each answer's style.",
        ),
        "Page": {**STRING, "description": "A document that needs nothing from outside."},
        "Preference": _object(
            {"chosen": conversation, "rejected": conversation, "blind": FLAG, "rater": STRING, "question_id": STRING},
            required=("prompt", "chosen", "rejected", "blind", "rater"),
            more="Also the models and the manifests of both answers.",
        ),
    }


def _models() -> dict[str, Schema]:
    return {
        "NamedModel": _object(
            {
                "model": {**STRING, "description": "A name without a tag means `:latest`."},
                "endpoint": {**STRING, "description": "A name from /api/endpoints, where several are configured."},
            },
            required=("model",),
        ),
        "Models": _object(
            {"models": _list(STRING), "details": _list(reference("ModelInfo"))}, required=("models", "details")
        ),
        "Loaded": _object({"loaded": _list(reference("LoadedModel"))}, required=("loaded",)),
        "PullStarted": _object(
            {"status": {"const": "downloading"}, "model": STRING, "job": reference("PullJob")},
            required=("status", "model", "job"),
        ),
        "Pulls": _object({"pulls": _list(reference("PullJob"))}, required=("pulls",)),
        "ModelDone": _object(
            {"status": {"enum": ["deleted", "loaded", "unloaded"]}, "model": STRING}, required=("status", "model")
        ),
    }


def _endpoints() -> dict[str, Schema]:
    return {
        "Health": _object(
            {
                "status": {"enum": ["healthy", "degraded"]},
                "service": {"const": "ollama-arena"},
                "models_available": COUNT,
                "ollama_reachable": FLAG,
                "endpoints_reachable": COUNT,
                "endpoints_configured": COUNT,
                "engine": {"enum": ["off", "starting", "running", "failed"]},
                "version": STRING,
            },
            required=("status", "service", "models_available", "ollama_reachable"),
        ),
        "Endpoints": _object(
            {
                "endpoints": _list(reference("EndpointStatus")),
                "engine": _object({"state": STRING, "error": {"type": ["string", "null"]}}, required=("state",)),
            },
            required=("endpoints", "engine"),
        ),
        "FleetReloaded": _object(
            {"status": {"const": "reloaded"}, "endpoints": _list(STRING)}, required=("status", "endpoints")
        ),
        "FleetDrain": _object({"endpoint": STRING, "on": {**FLAG, "default": True}}, required=("endpoint",)),
        "FleetWeight": _object(
            {"endpoint": STRING, "weight": {"type": "number", "exclusiveMinimum": 0, "maximum": 1000}},
            required=("endpoint", "weight"),
        ),
        "FleetLever": _object(
            {
                "status": {"enum": ["draining", "serving", "weighted"]},
                "endpoint": STRING,
                "weight": {"type": "number"},
            },
            required=("status", "endpoint"),
        ),
    }


def _object(properties: dict[str, Schema], *, required: tuple[str, ...] = (), more: str = "") -> Schema:
    schema: Schema = {"type": "object", "properties": properties, "required": list(required)}
    return schema | {"description": more} if more else schema


def _list(items: Schema, description: str = "") -> Schema:
    schema: Schema = {"type": "array", "items": items}
    return schema | {"description": description} if description else schema
