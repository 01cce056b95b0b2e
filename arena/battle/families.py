"""What gives a model away: its name, the families in it, and who made them."""

from __future__ import annotations

import re
from typing import Final

from arena.names import registry_host

_MAKERS: Final = {
    "athene": ("nexusflow", "qwen"),
    "aya": ("cohere",),
    "baichuan": (),
    "chatglm": ("glm", "zhipu", "z.ai"),
    "chatgpt": ("openai",),
    "claude": ("anthropic",),
    "codestral": ("mistral", "mistral ai"),
    "cogito": ("deep cogito",),
    "cohere": (),
    "command": ("cohere",),
    "dbrx": ("databricks",),
    "deepseek": (),
    "devstral": ("mistral", "mistral ai"),
    "dolphin": ("cognitive computations",),
    "ernie": ("baidu",),
    "exaone": ("lg ai",),
    "falcon": ("technology innovation institute", "tii"),
    "gemini": ("google", "deepmind"),
    "gemma": ("google", "deepmind"),
    "glm": ("zhipu", "chatglm", "z.ai"),
    "gpt": ("openai", "chatgpt"),
    "gptoss": ("openai", "chatgpt", "gpt"),
    "granite": ("ibm",),
    "grok": ("xai",),
    "hermes": ("nous research",),
    "hunyuan": ("tencent",),
    "internlm": ("shanghai ai laboratory",),
    "jamba": ("ai21",),
    "kimi": ("moonshot",),
    "lfm": ("liquid ai",),
    "llama": ("meta ai", "meta", "facebook"),
    "llava": ("llama",),
    "magistral": ("mistral", "mistral ai"),
    "marco": ("alibaba",),
    "minicpm": ("openbmb", "modelbest"),
    "ministral": ("mistral", "mistral ai"),
    "mistral": ("mistralai", "mistral ai"),
    "mixtral": ("mistral", "mistral ai"),
    "nemotron": ("nvidia",),
    "olmo": ("allen institute", "ai2"),
    "openchat": (),
    "orca": ("microsoft",),
    "phi": ("microsoft",),
    "qwen": ("alibaba", "tongyi", "qianwen", "通义千问"),
    "qwq": ("alibaba", "qwen"),
    "smollm": ("hugging face", "huggingface"),
    "solar": ("upstage",),
    "stablelm": ("stability ai",),
    "starcoder": ("bigcode",),
    "starling": (),
    "tulu": ("allen institute", "ai2"),
    "vicuna": ("lmsys",),
    "wizard": ("microsoft",),
    "yi": ("01.ai", "零一万物"),
    "zephyr": ("hugging face", "huggingface"),
}
"""By the word that a model's name holds: who made it, and what else it calls itself."""

EVERYDAY: Final = frozenset(
    {
        "aya", "cogito", "command", "dolphin", "falcon", "hermes", "marco", "meta", "orca", "phi", "solar",
        "starling", "wizard", "yi", "zephyr",
    }
)  # fmt: skip
"""Names that are ordinary words: nobody would take them for a model's unless they are said to be."""

_KNOWN_TO_ALL: Final = frozenset(
    {
        "claude", "cohere", "facebook", "gemini", "gemma", "glm", "google", "granite", "grok", "hugging face",
        "huggingface", "ibm", "llama", "microsoft", "mistral", "nvidia", "openai", "tii", "vicuna", "xai",
    }
)  # fmt: skip
"""Names that an answer may well hold that does not speak of itself: animals, winds, houses that make more."""

_NOBODY: Final = frozenset({"assistant", "chat", "chatbot", "default", "latest", "model", "ollama", "test"})
"""What models of one's own are called, and no name."""

_NAMES: Final = frozenset(_MAKERS).union(*_MAKERS.values())

_WORD: Final = re.compile(r"[a-z]{2,}")
_SHORT: Final = 3
"""Letters of a family's name that is a word of its own where it stands for the family: phi3, but not phind."""


def identity_words(*names: str) -> frozenset[str]:
    """What gives a model of these names away, the families that hosts tell of it among them."""
    return frozenset(word for name in names for word in _words(name.lower()))


def is_ambiguous(word: str) -> bool:
    """May an answer hold `word` without giving its model away?"""
    own = word not in _NAMES and word.isascii() and word.isalpha()  # somebody's own model may be called anything
    return own or word in EVERYDAY or word in _KNOWN_TO_ALL


def _words(name: str) -> set[str]:
    host = registry_host(name)
    own = name if host is None else name.removeprefix(f"{host}/")
    base = own.rpartition("/")[2].partition(":")[0]
    words = {base} if len(base) > _SHORT else set()
    spoken = [word for word in _WORD.findall(own) if word not in _NOBODY]
    families = [family for family in _MAKERS if any(_is_of(word, family) for word in spoken)]
    for family in families:
        words |= {family, *_MAKERS[family]}
    first = _WORD.match(base)
    if first and not families and len(first[0]) >= _SHORT:
        words.add(first[0])
    return words - _NOBODY


def _is_of(word: str, family: str) -> bool:
    """Is `word` the family's name, alone or joined to another: openhermes, tinyllama, wizardlm?"""
    return word == family or (len(family) > _SHORT and (word.startswith(family) or word.endswith(family)))
