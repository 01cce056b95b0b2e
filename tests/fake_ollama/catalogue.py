"""What the fake knows about its models: entries of tags and ps, show's answer, all derived from the name."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

from tests.fake_ollama.dialects import Json

DEFAULT_MODELS = ("fx-ok:latest", "tiny:latest", "llama3.2:3b", "qwen2.5:3b", "qwen2.5:7b", "mistral:7b")
CONTEXT_LENGTH = 8192

_EXTRA_CAPABILITIES = {"fx-think": ("thinking",), "fx-tools": ("tools",), "fx-vision": ("vision",)}


def tagged(name: str) -> str:
    """The name with its tag, as tags and ps list it."""
    return name if ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"


def capabilities(name: str) -> list[str]:
    """What the model can do; ordinary models complete and call tools."""
    base = name.lower().partition(":")[0]
    if not base.startswith("fx-"):
        return ["completion", "tools"]
    return ["completion", *_EXTRA_CAPABILITIES.get(base, ())]


def digest(name: str) -> str:
    """64 hex digits without a prefix."""
    return hashlib.sha256(tagged(name).lower().encode()).hexdigest()


def size_bytes(name: str) -> int:
    """A believable size, from the tag's figure (3b: 2 GB) where there is one."""
    tag = tagged(name).rpartition(":")[2].lower().removesuffix("b")
    billions = float(tag) if tag.replace(".", "", 1).isdigit() else 0.135
    return int(billions * 640_000_000) + int(digest(name)[:4], 16)


def details(name: str, *, context: bool = True) -> Json:
    """The `details` object; ps leaves the context fields out."""
    family = name.lower().partition(":")[0].rpartition("/")[2].rstrip("0123456789.") or "llama"
    more = {"context_length": CONTEXT_LENGTH, "embedding_length": 576} if context else {}
    return {
        "parent_model": "",
        "format": "gguf",
        "family": family,
        "families": [family],
        "parameter_size": f"{size_bytes(name) / 640_000_000:.2f}B",
        "quantization_level": "Q4_K_M",
        **more,
    }


def tags_entry(name: str) -> Json:
    """One item of `/api/tags`."""
    return {
        "name": tagged(name),
        "model": tagged(name),
        "modified_at": "2026-01-01T12:00:00.1+01:00",
        "size": size_bytes(name),
        "digest": digest(name),
        "details": details(name),
        "capabilities": capabilities(name),
    }


def ps_entry(name: str, *, context_length: int = CONTEXT_LENGTH, forever: bool = False) -> Json:
    """One item of `/api/ps`."""
    expires = datetime.now(UTC) + (timedelta(days=106_751) if forever else timedelta(minutes=5))
    return {
        "name": tagged(name),
        "model": tagged(name),
        "size": size_bytes(name),
        "digest": digest(name),
        "details": details(name, context=False),
        "expires_at": expires.isoformat().replace("+00:00", "Z"),
        "size_vram": size_bytes(name) // 2,
        "context_length": context_length,
    }


def show(name: str) -> Json:
    """The answer of `/api/show`."""
    family = str(details(name)["family"])
    return {
        "license": "Apache License 2.0",
        "modelfile": f"# Modelfile\nFROM /home/secret/.ollama/models/blobs/sha256-{digest(name)}\n",
        "parameters": 'stop                           "<|im_end|>"',
        "template": "{{ .Prompt }}",
        "details": details(name),
        "model_info": {
            "general.architecture": family,
            "general.file_type": 15,
            "general.parameter_count": size_bytes(name) * 2,
            f"{family}.context_length": CONTEXT_LENGTH,
            f"{family}.embedding_length": 576,
            "tokenizer.ggml.tokens": None,
        },
        "capabilities": capabilities(name),
        "modified_at": "2026-01-01T12:00:00.1+01:00",
    }
