"""Where models are found, what they are called, and what is left alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from arena.engine.config import Config, from_environment, usable_cores
from arena.engine.durations import FOREVER_S
from arena.engine.models import Models
from arena.engine.places import find_all, hub_cache, ollama_store, own_folder, packaged, quantization_of
from arena.errors import SettingsError
from tests.engine.files import gguf_bytes

KEYS = {"general.architecture": "llama", "general.file_type": 15, "llama.context_length": 2048}
MODEL = gguf_bytes(KEYS, {"a.weight": (64, 64)})


def put(path: Path, content: bytes = MODEL) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def named(found: Any) -> list[str]:
    return [item.name for item in found]


class TestOwnFolder:
    def test_names_come_from_folders(self, tmp_path: Path) -> None:
        put(tmp_path / "smollm2" / "135m-q8_0.gguf")
        put(tmp_path / "hf.co" / "org" / "repo" / "q4_k_m.gguf")
        put(tmp_path / "Loose.gguf")
        assert named(own_folder(tmp_path)) == ["Loose:latest", "hf.co/org/repo:q4_k_m", "smollm2:135m-q8_0"]

    def test_projectors_and_later_parts_are_no_models(self, tmp_path: Path) -> None:
        model = put(tmp_path / "see" / "small.gguf")
        eye = put(tmp_path / "see" / "mmproj-small.gguf")
        put(tmp_path / "big" / "x-00001-of-00002.gguf")
        put(tmp_path / "big" / "x-00002-of-00002.gguf")
        found = {item.path: item for item in own_folder(tmp_path)}
        assert found[model].projector == eye
        assert len(found) == 2

    def test_illegal_names_and_parts_are_left_out(self, tmp_path: Path) -> None:
        put(tmp_path / "a b.gguf")
        put(tmp_path / "x" / "y.gguf.part")
        assert named(own_folder(tmp_path)) == []

    def test_what_was_noted_beside_it(self, tmp_path: Path) -> None:
        put(tmp_path / "a" / "b.gguf")
        put(tmp_path / "a" / "b.json", b'{"system": "Be kind.", "parameters": {"top_k": 3}, "other": 1}')
        put(tmp_path / "a" / "c.gguf")
        put(tmp_path / "a" / "c.json", b"[]")
        first, second = own_folder(tmp_path)
        assert (first.system, first.parameters) == ("Be kind.", {"top_k": 3})
        assert second.system == ""

    def test_no_folder(self, tmp_path: Path) -> None:
        assert named(own_folder(tmp_path / "none")) == []


class TestPackage:
    def test_is_looked_up_and_never_imported(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        put(tmp_path / "some_weights" / "__init__.py", b"raise RuntimeError('imported')")
        path = put(tmp_path / "some_weights" / "model.gguf")
        monkeypatch.syspath_prepend(str(tmp_path))
        assert [(item.name, item.path) for item in packaged("some_weights")] == [("smollm2:135m", path)]

    def test_absent(self) -> None:
        assert named(packaged("no_such_package")) == []


def ollama(root: Path, name: str, layers: dict[str, bytes], host: str = "registry.ollama.ai/library") -> None:
    entries = []
    for kind, content in layers.items():
        digest = hashlib.sha256(content).hexdigest()
        put(root / "blobs" / f"sha256-{digest}", content)
        entries.append({"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{digest}"})
    put(root / "manifests" / host / name, json.dumps({"layers": entries}).encode())


class TestOllamaStore:
    def test_layers(self, tmp_path: Path) -> None:
        layers = {"model": MODEL, "system": b"Be kind.", "params": b'{"stop": ["x"], "top_k": 3}', "license": b"free"}
        ollama(tmp_path, "llama/1b", layers)
        (found,) = ollama_store(tmp_path)
        assert found.name == "llama:1b"
        assert (found.system, found.license, found.parameters) == ("Be kind.", "free", {"stop": ["x"], "top_k": 3})
        assert found.digest == hashlib.sha256(MODEL).hexdigest()
        assert not found.own

    def test_other_namespaces_and_hosts_keep_their_names(self, tmp_path: Path) -> None:
        ollama(tmp_path, "m/t", {"model": MODEL}, host="registry.ollama.ai/someone")
        ollama(tmp_path, "m/t", {"model": MODEL}, host="hf.co/someone")
        assert named(ollama_store(tmp_path)) == ["hf.co/someone/m:t", "someone/m:t"]

    def test_what_cannot_be_used_is_left_out(self, tmp_path: Path) -> None:
        ollama(tmp_path, "cloud/stub", {"params": b"{}"})
        ollama(tmp_path, "half/pulled", {"model": b"other" + MODEL})
        (tmp_path / "blobs" / f"sha256-{hashlib.sha256(b'other' + MODEL).hexdigest()}").unlink()
        put(tmp_path / "manifests" / "registry.ollama.ai" / "library" / "bad" / "json", b"{")
        escape = {"layers": [{"mediaType": "x.model", "digest": "sha256:../../../etc/passwd"}]}
        put(tmp_path / "manifests" / "registry.ollama.ai" / "library" / "bad" / "path", json.dumps(escape).encode())
        put(tmp_path / "manifests" / "too" / "short", b"{}")
        assert named(ollama_store(tmp_path)) == []

    def test_large_layers_are_not_read(self, tmp_path: Path) -> None:
        ollama(tmp_path, "m/t", {"model": MODEL, "system": b"x" * (1024 * 1024 + 1)})
        (found,) = ollama_store(tmp_path)
        assert found.system == ""

    def test_no_store(self, tmp_path: Path) -> None:
        assert named(ollama_store(tmp_path / "none")) == []


class TestHubCache:
    def test_names_digests_and_quantisation(self, tmp_path: Path) -> None:
        digest = "ab" * 32
        blob = put(tmp_path / "models--Org--Some-Model-GGUF" / "blobs" / digest)
        snapshot = tmp_path / "models--Org--Some-Model-GGUF" / "snapshots" / "c0ffee"
        snapshot.mkdir(parents=True)
        (snapshot / "some-model-q4_k_m.gguf").symlink_to(blob)
        (found,) = hub_cache(tmp_path)
        assert (found.name, found.digest) == ("hf.co/Org/Some-Model-GGUF:Q4_K_M", digest)

    def test_a_cache_that_may_not_be_read_holds_nothing_for_us(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(folder: Path, pattern: str) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "glob", refuse)
        assert named(hub_cache(Path("/cache"))) == []

    @pytest.mark.parametrize(
        ("stem", "quantization"),
        [
            ("Qwen3-0.6B-Q8_0", "Q8_0"), ("model.Q4_K_M", "Q4_K_M"), ("x-iq3_xxs", "IQ3_XXS"), ("m-bf16", "BF16"),
            ("m-Q4_K_M-00001-of-00003", "Q4_K_M"), ("plain", "plain"), ("a b", "a-b"), ("...", "model"),
        ],
    )  # fmt: skip
    def test_quantisation(self, stem: str, quantization: str) -> None:
        assert quantization_of(stem) == quantization


class TestEverything:
    def test_first_place_wins_and_paths_may_be_files_or_folders(self, tmp_path: Path) -> None:
        own = put(tmp_path / "data" / "models" / "m" / "t.gguf")
        put(tmp_path / "more" / "in folder.gguf")
        single = put(tmp_path / "single.gguf")
        ollama(tmp_path / "ollama", "m/t", {"model": MODEL})
        config = Config(
            data=tmp_path / "data",
            package="no_such_package",
            extra_models=(tmp_path / "more", single, tmp_path / "missing"),
            ollama_models=(tmp_path / "ollama",),
            hub_cache=tmp_path / "hub",
        )
        assert named(find_all(config)) == ["m:t", "in-folder:latest", "single:latest", "m:t"]
        models = Models(config)
        assert {model.name for model in models.scan()} == {"m:t", "in-folder:latest", "single:latest"}
        found = models.find("M:T")
        assert found is not None
        assert found.found.path == own


class TestModels:
    def models(self, tmp_path: Path) -> Models:
        return Models(Config(data=tmp_path, package="no_such_package"))

    def test_change_and_loss_of_a_file_are_seen(self, tmp_path: Path) -> None:
        path = put(tmp_path / "models" / "m" / "t.gguf")
        models = self.models(tmp_path)
        before = models.find("m:t")
        put(path, gguf_bytes({**KEYS, "llama.context_length": 99, "more": "x"}))
        after = models.find("m:t")
        assert before is not None
        assert after is not None
        assert (before.trained_context, after.trained_context) == (2048, 99)
        path.unlink()
        assert models.known("m:t") is None
        assert models.find("m:t") is None

    def test_headers_are_read_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        put(tmp_path / "models" / "m" / "t.gguf")
        models = self.models(tmp_path)
        models.scan()
        monkeypatch.setattr("arena.engine.models.read_header", lambda _: pytest.fail("read again"))
        assert models.scan()[0].trained_context == 2048

    def test_broken_file_is_listed_and_says_why(self, tmp_path: Path) -> None:
        put(tmp_path / "models" / "m" / "cut.gguf", MODEL[:-500])
        (model,) = self.models(tmp_path).scan()
        assert "truncated" in model.broken
        listed = model.listed("")
        assert (listed["details"]["family"], listed["capabilities"]) == ("", [])
        assert model.shown()["modelfile"] == "FROM m:cut\n"

    def test_file_that_cannot_be_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        put(tmp_path / "models" / "m" / "t.gguf")

        def refuse(_: Path) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("arena.engine.models.read_header", refuse)
        (model,) = self.models(tmp_path).scan()
        assert model.broken == "the file cannot be read: Permission denied"

    def test_dangling_link_is_left_out(self, tmp_path: Path) -> None:
        link = tmp_path / "models" / "m" / "t.gguf"
        link.parent.mkdir(parents=True)
        link.symlink_to(tmp_path / "none")
        assert self.models(tmp_path).scan() == []

    @pytest.mark.parametrize(
        ("keys", "projector", "able"),
        [
            ({"tokenizer.chat_template": "{% for m in messages %}"}, False, ["completion"]),
            ({"tokenizer.chat_template": "{%- if tools %}{{ tools }}"}, False, ["completion", "tools"]),
            ({"tokenizer.chat_template": "{% if enable_thinking %}"}, False, ["completion", "thinking"]),
            ({"tokenizer.chat_template": "no tools in this text"}, False, ["completion"]),
            ({}, True, ["completion", "vision"]),
            ({"general.architecture": "nomic-bert"}, False, ["embedding"]),
            ({"llama.pooling_type": 1}, False, ["embedding"]),
        ],
    )
    def test_capabilities(self, tmp_path: Path, keys: dict[str, Any], projector: bool, able: list[str]) -> None:
        put(tmp_path / "models" / "m" / "t.gguf", gguf_bytes({**KEYS, **keys}))
        if projector:
            put(tmp_path / "models" / "m" / "mmproj.gguf")
        (model,) = self.models(tmp_path).scan()
        assert model.capabilities == able

    @pytest.mark.parametrize(
        ("shape", "words"),
        [((10, 10), "100"), ((100, 100), "10.00K"), ((2000, 600), "1.20M"), ((50000, 30000), "1.5B")],
    )
    def test_size_in_words(self, tmp_path: Path, shape: tuple[int, int], words: str) -> None:
        header = gguf_bytes(KEYS, {"a": shape}) if shape[0] < 50000 else b""
        put(tmp_path / "models" / "m" / "t.gguf", header or _sparse(KEYS, shape))
        (model,) = self.models(tmp_path).scan()
        if model.header is None:
            pytest.fail(model.broken)
        assert model.details()["parameter_size"] == words

    def test_show_has_parameters_and_system_as_ollama_writes_them(self, tmp_path: Path) -> None:
        put(tmp_path / "models" / "m" / "t.gguf")
        put(
            tmp_path / "models" / "m" / "t.json",
            b'{"system": "Be kind.", "parameters": {"top_k": 3, "stop": ["a", "b"]}}',
        )
        shown = self.models(tmp_path).scan()[0].shown()
        assert [line.split() for line in shown["parameters"].splitlines()] == [
            ["top_k", "3"],
            ["stop", '"a"'],
            ["stop", '"b"'],
        ]
        assert shown["modelfile"] == (
            'FROM m:t\nPARAMETER top_k 3\nPARAMETER stop "a"\nPARAMETER stop "b"\nSYSTEM """Be kind."""\n'
        )


def _sparse(keys: dict[str, Any], shape: tuple[int, int]) -> bytes:
    """A header whose tensor is of a type we do not know, so that it needs no data."""
    data = gguf_bytes(keys, {"a": (1, 1)})
    import struct

    small, large = struct.pack("<QQI", 1, 1, 0), struct.pack("<QQI", *shape, 999)
    return data.replace(small, large)


class TestConfig:
    def test_defaults(self, tmp_path: Path) -> None:
        config = from_environment(tmp_path, {"HOME": "/home/me"})
        assert config.models == tmp_path / "models"
        assert config.ollama_models[0] == Path("/home/me/.ollama/models")
        assert config.hub_cache == Path("/home/me/.cache/huggingface/hub")
        assert (config.keep_alive_s, config.parallel, config.max_loaded, config.max_queue) == (300, 1, 3, 512)
        assert 1 <= config.threads <= min(4, usable_cores())
        assert config.fetch

    def test_ollamas_variables(self, tmp_path: Path) -> None:
        config = from_environment(
            tmp_path,
            {
                "OLLAMA_KEEP_ALIVE": "-1", "OLLAMA_NUM_PARALLEL": "4", "OLLAMA_MAX_LOADED_MODELS": "0",
                "OLLAMA_MAX_QUEUE": "7", "OLLAMA_CONTEXT_LENGTH": "8192", "OLLAMA_LOAD_TIMEOUT": "1m30s",
                "OLLAMA_MODELS": "/m", "HF_HUB_CACHE": "/h", "HF_ENDPOINT": "http://x/", "HF_HUB_OFFLINE": "1",
            },
        )  # fmt: skip
        assert (config.keep_alive_s, config.parallel, config.max_loaded) == (FOREVER_S, 4, 3)
        assert (config.max_queue, config.context_length, config.load_timeout_s) == (7, 8192, 90)
        assert (config.ollama_models, config.hub_cache) == ((Path("/m"),), Path("/h"))
        assert (config.hub_url, config.fetch) == ("http://x", False)

    def test_the_arenas_orders(self, tmp_path: Path) -> None:
        config = from_environment(tmp_path, {}, fetch=False, threads=10**6, extra_models=[Path("/a"), Path("/b.gguf")])
        assert config.extra_models == (Path("/a"), Path("/b.gguf"))
        assert (config.fetch, config.threads) == (False, usable_cores())

    def test_hub_home(self, tmp_path: Path) -> None:
        assert from_environment(tmp_path, {"HF_HOME": "/hf"}).hub_cache == Path("/hf/hub")

    @pytest.mark.parametrize(
        ("name", "value"), [("OLLAMA_NUM_PARALLEL", "many"), ("OLLAMA_MAX_QUEUE", "-1"), ("OLLAMA_KEEP_ALIVE", "5 x")]
    )
    def test_wrong_value_names_the_variable(self, tmp_path: Path, name: str, value: str) -> None:
        with pytest.raises(SettingsError, match=name):
            from_environment(tmp_path, {name: value})

    def test_container_quota_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("arena.engine.config.Path.read_text", lambda _: "150000 100000\n")
        assert usable_cores() == 1
        monkeypatch.setattr("arena.engine.config.Path.read_text", lambda _: "max 100000\n")
        assert usable_cores() >= 1
