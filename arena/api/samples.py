"""Example requests and answers for the API's description, as the clients' own documents show them."""

from __future__ import annotations

from typing import Any

Examples = tuple[tuple[str, Any], ...]

_LLAMA_ID = "llama3_2_3b__0.7_0.9_40_1.1_-1_0"
_QWEN_ID = "qwen2_5_3b__0.5_0.8_30_1.2_500_42"

_LLAMA = {
    "id": _LLAMA_ID,
    "model": "llama3.2:3b",
    "temperature": 0.7,
    "top_p": 0.9,
    "top_k": 40,
    "repeat_penalty": 1.1,
    "num_predict": -1,
    "seed": 0,
}
_QWEN = {
    "id": _QWEN_ID,
    "model": "qwen2.5:3b",
    "temperature": 0.5,
    "top_p": 0.8,
    "top_k": 30,
    "repeat_penalty": 1.2,
    "num_predict": 500,
    "seed": 42,
}
_HISTORY = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is 2+2?"},
]
_STORY = [{"role": "user", "content": "Tell me a story"}]


def _entry(model: str, instance_id: str, response: str, tokens: int, duration_s: float, rate: float) -> dict[str, Any]:
    return {
        "model": model,
        "instance_id": instance_id,
        "response": response,
        "assistant": response,
        "metrics": {
            "tokens": tokens,
            "duration_s": duration_s,
            "tokens_per_sec": rate,
            "rate_reliable": False,
            "contended": False,
        },
        "error": None,
    }


CHAT_REQUESTS: Examples = (
    ("model_instances", {"history": _HISTORY, "model_instances": [_LLAMA, _QWEN], "stream": False}),
    ("models", {"history": _HISTORY, "models": ["llama3.2:3b", "qwen2.5:3b"], "stream": False}),
)
CHAT_ANSWERS: Examples = (
    (
        "one",
        {
            **_entry("llama3.2:3b", _LLAMA_ID, "2 + 2 equals 4.", 8, 0.42, 19.05),
            "errors": {},
            "history_truncated": False,
        },
    ),
    (
        "several",
        {
            "results": {
                _LLAMA_ID: _entry("llama3.2:3b", _LLAMA_ID, "The answer is 4.", 12, 0.53, 22.64),
                _QWEN_ID: _entry("qwen2.5:3b", _QWEN_ID, "2 + 2 = 4", 5, 0.31, 16.13),
            },
            "errors": {},
            "history_truncated": False,
        },
    ),
)
STREAM_REQUESTS: Examples = (
    ("model_instances", {"history": _STORY, "model_instances": [_LLAMA]}),
    ("models", {"history": _STORY, "models": ["llama3.2:3b", "qwen2.5:3b"]}),
)
STREAM_ANSWERS: Examples = (
    ("token", {"instance_id": _LLAMA_ID, "model": "llama3.2:3b", "token": "Once", "done": False}),
    (
        "last",
        {
            "instance_id": _LLAMA_ID,
            "model": "llama3.2:3b",
            "token": "",
            "done": True,
            "metrics": {
                "tokens": 150,
                "duration_s": 3.2,
                "tokens_per_sec": 46.88,
                "rate_reliable": True,
                "contended": False,
            },
        },
    ),
    (
        "failed",
        {
            "instance_id": _QWEN_ID,
            "model": "qwen2.5:3b",
            "token": "",
            "done": True,
            "metrics": {
                "tokens": 0,
                "duration_s": 0.0,
                "tokens_per_sec": 0.0,
                "rate_reliable": False,
                "contended": False,
            },
            "error": "model 'qwen2.5:3b' not found",
            "error_code": "model_not_found",
        },
    ),
)
_BATTLE_ID = "5f0c9a7be4d14a0f8f6b2f1f4a3d9c01"
BATTLE_REQUESTS: Examples = (
    ("any", {}),
    ("chosen", {"models": ["llama3.2:3b", "qwen2.5:3b", "mistral:7b"], "category": "coding", "tags": ["python"]}),
    ("newcomers", {"mode": "newcomers", "sides": 3}),
)
BATTLE_ANSWERS: Examples = (
    ("begun", {"id": _BATTLE_ID, "state": "open", "turns": 0, "vote_open": False, "sides": ["a", "b"]}),
)
TURN_REQUESTS: Examples = (("message", {"message": "Explain closures in two sentences."}),)
TURN_ANSWERS: Examples = (
    ("token", {"instance_id": "a", "token": "A closure", "done": False}),
    ("last", {"instance_id": "a", "token": "", "done": True}),
    (
        "failed",
        {
            "instance_id": "a",
            "token": "",
            "done": True,
            "error": "This battle has ended without a result: not every side could answer",
            "error_code": "battle_failed",
        },
    ),
)
VOTE_REQUESTS: Examples = (("two", {"verdict": "a"}), ("several", {"ranks": {"a": 2, "b": 1, "c": 2}}))
VOTE_ANSWERS: Examples = (
    (
        "revealed",
        {
            "id": _BATTLE_ID,
            "state": "voted",
            "turns": 1,
            "vote_open": False,
            "sides": ["a", "b"],
            "verdict": "a",
            "rated": True,
            "revealed": {
                side: {
                    "model": model,
                    "endpoint": "ollama",
                    "configuration": configuration,
                    "label": model,
                    "options": {},
                    "answers": ["A closure is a function that keeps what it needs."],
                    "metrics": [{"tokens": 12, "duration_s": 0.53, "tokens_per_sec": 22.64}],
                    "manifests": [{"model": model, "endpoint": "ollama"}],
                }
                for side, model, configuration in (
                    ("a", "qwen2.5:3b", "0f4a1c9be2d35a77"),
                    ("b", "llama3.2:3b", "9be2d35a770f4a1c"),
                )
            },
        },
    ),
)
DIRECT_REQUESTS: Examples = (
    (
        "best",
        {
            "prompt": "What is 2+2?",
            "answers": [
                _entry("llama3.2:3b", _LLAMA_ID, "The answer is 4.", 12, 0.53, 22.64),
                _entry("qwen2.5:3b", _QWEN_ID, "2 + 2 = 4", 5, 0.31, 16.13),
            ],
            "best": _QWEN_ID,
        },
    ),
)
DIRECT_ANSWERS: Examples = (("kept", {"votes": 1}),)
IMPORT_REQUESTS: Examples = (
    (
        "lmarena",
        {
            "question_id": "58210e39",
            "model_a": "llama3.2:3b",
            "model_b": "qwen2.5:3b",
            "winner": "model_b",
            "judge": "arena_user_973",
            "turn": 1,
            "anony": True,
            "tstamp": 1682351591.1,
        },
    ),
)
IMPORT_ANSWERS: Examples = (("imported", {"format": "lmarena", "new": 1, "known": 0}),)
BOARD_ANSWERS: Examples = (
    (
        "board",
        {
            "view": {
                "per": "model",
                "blind": True,
                "category": None,
                "tag": None,
                "since": None,
                "until": None,
                "voters": None,
                "style": False,
            },
            "last_vote": 240,
            "votes": 240,
            "voters": 12,
            "weight": 236.0,
            "rows": [
                {
                    "name": "qwen2.5:3b",
                    "model": "qwen2.5:3b",
                    "rating": 1061.4,
                    "lower": 1021.9,
                    "upper": 1100.9,
                    "rank": 1,
                    "rank_best": 1,
                    "rank_worst": 2,
                    "votes": 161,
                    "weight": 158.0,
                    "wins": 84,
                    "losses": 48,
                    "ties": 21,
                    "both_bad": 8,
                    "win_rate": 0.61,
                    "preliminary": False,
                }
            ],
            "labels": {},
            "effects": [],
        },
    ),
)
_COLUMNS = {"model_instances": [_LLAMA, _QWEN], "system": "Be brief.", "order": "one_after_another"}
PRESET_REQUESTS: Examples = (("columns", _COLUMNS),)
PRESET_ANSWERS: Examples = (("kept", {"name": "Small ones", **_COLUMNS}),)
PRESETS_ANSWERS: Examples = (("presets", {"presets": [{"name": "Small ones", **_COLUMNS}]}),)
PRESET_DELETED: Examples = (("deleted", {"deleted": "Small ones"}),)

_KEPT = {"id": "4f0c6a1be29d4c0c9a6f6e3d5b7a8c90", "title": "What is 2+2?", "kept_at": "2026-01-02T03:04:05.678+00:00"}
_CONVERSATION = {
    "format": "ollama-arena-comparison/1",
    "columns": [
        {
            "id": "A",
            "turns": [
                {
                    "prompt": "What is 2+2?",
                    "sent_prompt": "What is 2+2?",
                    "attachments": [],
                    "instance": {"id": "A", "model": "llama3.2:3b", "options": {"temperature": 0.7}},
                    "answer": "2 + 2 equals 4.",
                    "thinking": "",
                    "complete": True,
                    "error": None,
                    "metrics": {"tokens": 8, "duration_s": 0.42, "tokens_per_sec": 19.05},
                    "manifest": None,
                }
            ],
        }
    ],
}
CONVERSATION_REQUESTS: Examples = (("comparison", {"title": "What is 2+2?", **_CONVERSATION}),)
KEPT_ANSWERS: Examples = (("kept", _KEPT),)
CONVERSATION_ANSWERS: Examples = (("comparison", {**_KEPT, **_CONVERSATION}),)
CONVERSATIONS_ANSWERS: Examples = (("titles", {"conversations": [_KEPT]}),)
CONVERSATION_DELETED: Examples = (("deleted", {"deleted": _KEPT["id"]}),)
MODELS_ANSWERS: Examples = (("models", {"models": ["llama3.2:3b", "qwen2.5:7b", "mistral:7b"], "details": []}),)
PULL_REQUESTS: Examples = (("pull", {"model": "deepseek-r1:8b"}),)
PULL_ANSWERS: Examples = (("started", {"status": "downloading", "model": "deepseek-r1:8b"}),)
DELETE_REQUESTS: Examples = (("delete", {"model": "llama2:7b"}),)
DELETE_ANSWERS: Examples = (("deleted", {"status": "deleted", "model": "llama2:7b"}),)
HEALTH_ANSWERS: Examples = (
    (
        "healthy",
        {"status": "healthy", "service": "ollama-arena", "models_available": 5, "ollama_reachable": True},
    ),
)
ERRORS: dict[int, Examples] = {
    400: (
        ("messages", {"error": "No messages provided", "code": "bad_request"}),
        ("models", {"error": "No models selected", "code": "bad_request"}),
        ("range", {"error": "temperature must be between 0.01 and 2.0", "code": "bad_request"}),
        ("duplicate", {"error": f"Duplicate model instance detected: {_LLAMA_ID}", "code": "bad_request"}),
    ),
    401: (
        ("missing", {"error": "Missing or invalid Authorization header", "code": "unauthorized"}),
        ("invalid", {"error": "Invalid authorization token", "code": "unauthorized"}),
    ),
    403: (("forbidden", {"error": "Requests from other web sites are not allowed", "code": "forbidden"}),),
    404: (("not_found", {"error": "Resource not found", "code": "not_found"}),),
    405: (("method", {"error": "Method not allowed", "code": "method_not_allowed"}),),
    409: (("answering", {"error": "The vote opens when all answers are complete", "code": "battle_answering"}),),
    413: (("large", {"error": "The request body is larger than 1048576 bytes", "code": "payload_too_large"}),),
    415: (("type", {"error": "Content-Type must be application/json", "code": "unsupported_media_type"}),),
    429: (("rate", {"error": "Too many requests; try again in a moment", "code": "too_many_requests"}),),
    500: (
        (
            "backend",
            {
                "error": "An unexpected error occurred",
                "code": "backend_unreachable",
                "details": "Connection refused",
            },
        ),
    ),
    503: (("stopping", {"error": "The server is shutting down.", "code": "server_shutting_down"}),),
}
