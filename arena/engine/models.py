"""The models of this machine: found, described as Ollama describes them, and looked up by name."""

from __future__ import annotations

import re
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec import Struct

from arena.engine.config import Config
from arena.engine.durations import rfc3339
from arena.engine.header import TENSOR_TYPES, BrokenModel, Header, read_header
from arena.engine.places import Found, find_all
from arena.names import canonical

# encoders: their answer is a vector, never text
_EMBEDDING_ONLY = ("bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert",
                   "t5encoder", "gemma-embedding", "eurobert")  # fmt: skip


class LocalModel(Struct, frozen=True):
    """One model that can be asked, or the reason why not (`broken`). `key` tells which weights are behind it."""

    found: Found
    size_bytes: int
    modified_ns: int
    header: Header | None
    broken: str = ""

    @property
    def name(self) -> str:
        """With its tag, as listed."""
        return self.found.name

    @property
    def key(self) -> str:
        """Two names with the same key share one loaded model."""
        return str(self.found.path.resolve())

    @property
    def trained_context(self) -> int | None:
        """Tokens of context the model was trained for."""
        return self.header.of_architecture("context_length") if self.header else None

    @property
    def embedding_only(self) -> bool:
        """Does it make vectors, not text?"""
        return self.header is not None and self.header.architecture in _EMBEDDING_ONLY

    @property
    def pooling(self) -> int | None:
        """The pooling its file asks for, by llama.cpp's number."""
        return self.header.of_architecture("pooling_type") if self.header else None

    @property
    def capabilities(self) -> list[str]:
        """Ollama's words for what it can do, read from its metadata and its chat template."""
        if self.header is None:
            return []
        if self.embedding_only or self.pooling:
            return ["embedding"]
        template = self.header.chat_template
        able = {
            "vision": self.found.projector is not None,
            "tools": bool(re.search(r"\{[%{][^{}]*\btools\b", template)),
            "thinking": "enable_thinking" in template or "<think>" in template or "reasoning_content" in template,
        }
        return ["completion", *(name for name, yes in able.items() if yes)]

    def details(self) -> dict[str, Any]:
        """The `details` object of tags, ps and show."""
        if self.header is None:
            return {"parent_model": "", "format": "gguf", "family": "", "families": None,
                    "parameter_size": "", "quantization_level": ""}  # fmt: skip
        family = self.header.architecture
        return {
            "parent_model": "",
            "format": "gguf",
            "family": family,
            "families": [family] if family else None,
            "parameter_size": _in_words(self.header.parameters),
            "quantization_level": self.header.quantization,
        }

    def listed(self, digest: str) -> dict[str, Any]:
        """The model's item in /api/tags."""
        details = self.details()
        if self.header is not None:
            for key in ("context_length", "embedding_length"):
                if (value := self.header.of_architecture(key)) is not None:
                    details[key] = value
        return {
            "name": self.name,
            "model": self.name,
            "modified_at": self.modified_at(),
            "size": self.size_bytes,
            "digest": digest,
            "details": details,
            "capabilities": self.capabilities,
        }

    def modified_at(self) -> str:
        """When the file was last written, RFC 3339."""
        return rfc3339(datetime.fromtimestamp(self.modified_ns / 1e9, UTC))

    def shown(self) -> dict[str, Any]:
        """The answer of /api/show. No path of this machine is ever in it."""
        found, header = self.found, self.header
        answer: dict[str, Any] = {
            "license": found.license or (header.text("general.license") if header else ""),
            "modelfile": _modelfile(found),
            "parameters": _parameter_lines(found.parameters),
            "template": header.chat_template if header else "",
            "system": found.system,
            "details": self.details(),
            "model_info": {"general.parameter_count": header.parameters, **header.keys} if header else {},
            "tensors": [_tensor(tensor) for tensor in header.tensors] if header else [],
            "capabilities": self.capabilities,
            "modified_at": self.modified_at(),
        }
        return {key: value for key, value in answer.items() if value not in ("", None)}


class Models:
    """All models found, newest look included. `scan` touches the disk: call it in a thread."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._headers: dict[tuple[str, int, int], Header | str] = {}
        self._by_name: dict[str, LocalModel] = {}
        self._scanning = threading.Lock()

    def scan(self) -> list[LocalModel]:
        """Look again in every place; newest first. Headers already read are not read again."""
        with self._scanning:
            return self._scan()

    def _scan(self) -> list[LocalModel]:
        by_name: dict[str, LocalModel] = {}
        for found in find_all(self._config):
            if canonical(found.name) not in by_name and (model := self._described(found)) is not None:
                by_name[canonical(found.name)] = model
        self._by_name = by_name
        kept = {self._identity(model.found.path, model.size_bytes, model.modified_ns) for model in by_name.values()}
        self._headers = {key: header for key, header in self._headers.items() if key in kept}
        return sorted(by_name.values(), key=lambda model: -model.modified_ns)

    def known(self, name: str) -> LocalModel | None:
        """The model of the last scan, if its file is still the same; a few microseconds, no directory is read."""
        model = self._by_name.get(canonical(name))
        if model is None:
            return None
        try:
            stat = model.found.path.stat()
        except OSError:
            return None
        return model if (stat.st_size, stat.st_mtime_ns) == (model.size_bytes, model.modified_ns) else None

    def find(self, name: str) -> LocalModel | None:
        """The model called `name`, in any spelling Ollama accepts."""
        if (model := self.known(name)) is None:
            self.scan()
            model = self.known(name)
        return model

    def _described(self, found: Found) -> LocalModel | None:
        try:
            stat = found.path.stat()
        except OSError:
            return None
        header = self._header(found.path, stat.st_size, stat.st_mtime_ns)
        if isinstance(header, str):
            return LocalModel(found, stat.st_size, stat.st_mtime_ns, None, header)
        return LocalModel(found, stat.st_size, stat.st_mtime_ns, header)

    def _header(self, path: Path, size_bytes: int, modified_ns: int) -> Header | str:
        key = self._identity(path, size_bytes, modified_ns)
        if key not in self._headers:
            try:
                self._headers[key] = read_header(path)
            except BrokenModel as error:
                self._headers[key] = error.message
            except OSError as error:
                return f"the file cannot be read: {error.strerror}"
        return self._headers[key]

    @staticmethod
    def _identity(path: Path, size_bytes: int, modified_ns: int) -> tuple[str, int, int]:
        return (str(path), size_bytes, modified_ns)


def _in_words(parameters: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if parameters >= size:
            return f"{parameters / size:.1f}B" if unit == "B" else f"{parameters / size:.2f}{unit}"
    return str(parameters)


def _tensor(tensor: Any) -> dict[str, Any]:
    known = TENSOR_TYPES.get(tensor.type)
    return {"name": tensor.name, "type": known[0] if known else str(tensor.type), "shape": list(tensor.shape)}


def _parameter_lines(parameters: dict[str, Any]) -> str:
    lines = []
    for name, value in parameters.items():
        for item in value if isinstance(value, list) else [value]:
            shown = f'"{item}"' if isinstance(item, str) else item
            lines.append(f"{name:<30} {shown}")
    return "\n".join(lines)


def _modelfile(found: Found) -> str:
    lines = [f"FROM {found.name}"]
    lines += [f"PARAMETER {' '.join(line.split(None, 1))}" for line in _parameter_lines(found.parameters).splitlines()]
    if found.system:
        lines.append(f'SYSTEM """{found.system}"""')
    return "\n".join(lines) + "\n"
