"""Does an answer give its model away? Small models like to introduce themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import unescape
from typing import Final
from unicodedata import category, normalize

_MAKERS: Final = {
    "aya": ("cohere",),
    "chatgpt": ("openai",),
    "claude": ("anthropic",),
    "codellama": ("meta ai", "llama"),
    "codestral": ("mistral",),
    "command": ("cohere",),
    "deepseek": (),
    "devstral": ("mistral",),
    "dolphin": ("cognitive computations",),
    "exaone": ("lg ai",),
    "falcon": ("technology innovation institute", "tii"),
    "gemini": ("google", "deepmind"),
    "gemma": ("google", "deepmind"),
    "glm": ("zhipu", "chatglm", "z.ai"),
    "gpt": ("openai", "chatgpt"),
    "granite": ("ibm",),
    "grok": ("xai",),
    "hermes": ("nous research",),
    "internlm": ("shanghai ai laboratory",),
    "kimi": ("moonshot",),
    "llama": ("meta ai", "facebook"),
    "llava": ("llama",),
    "magistral": ("mistral",),
    "minicpm": ("openbmb", "modelbest"),
    "ministral": ("mistral",),
    "mistral": ("mistralai",),
    "mixtral": ("mistral",),
    "nemotron": ("nvidia",),
    "olmo": ("allen institute", "ai2"),
    "orca": ("microsoft",),
    "phi": ("microsoft",),
    "qwen": ("alibaba", "tongyi", "qianwen", "通义千问"),
    "qwq": ("alibaba", "qwen"),
    "smollm": ("hugging face", "huggingface"),
    "solar": ("upstage",),
    "stablelm": ("stability ai",),
    "starcoder": ("bigcode",),
    "tinyllama": ("llama",),
    "vicuna": ("lmsys",),
    "wizard": ("microsoft",),
    "yi": ("01.ai", "零一万物"),
}
"""By the word a model's name begins with: who made it, and what else it calls itself."""

_ORDINARY: Final = frozenset({"command", "dolphin", "falcon", "hermes", "orca", "phi", "solar", "wizard", "yi", "aya"})
"""Families whose name is an ordinary word: only the makers are looked for, and the name with its number."""

_WORD = re.compile(r"[a-z]{2,}")
_ENTITY = re.compile(r"&#?\w{1,8};")
_BLANK: Final = (
    r"[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    r"\ufeff]|</?[a-z][^<>\n]{0,100}>|<!--[^<>\n]{0,100}-->"
)
"""What is nothing on a page, whatever stands around it: characters without a width, and HTML's marks."""

_MARK: Final = (
    r"\[(?=[^\[\]\n]{0,200}\]\()|\]\([^()\n]{0,200}\)|[*~`\\]|(?<![\w\\])_++|_++(?![^\W_])"  # shown: a[i], a_i
)
"""Markdown's marks, as in Q**wen**. In code they are signs: a[i]*2 is no ai2."""

_UNSEEN: Final = rf"(?:{_MARK}|{_BLANK})*+"
"""What a page does not show between two letters."""

_RUN = re.compile(r"[^\W_]+|[\W_]")
_SHORT: Final = 3
"""Letters of a run between which marks are rather code: x*a*i."""

_DRESSED = re.compile("[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\u24b6-\u24e9\U0001d400-\U0001d7ff]")
"""Letters that are other characters only for their look: full width, in a circle, bold."""

_VERSION = rf"(?:{_UNSEEN}[ :_-]?{_UNSEEN}v?\d+(?:\.\d+)*(?:[bm](?![a-z]))?)*"
"""What may follow a family's name, and tells its models apart: 3.2, 2.5-3B, :7b."""

_BLOCK: Final = "\N{FULL BLOCK}"


def names_itself(answer: str, model: str) -> bool:
    """Does `answer` name the family or the maker of `model`, in any case and dress, as a word of its own?"""
    words = identity_words(model)
    return bool(words) and re.search(_any_of(words), _spelled(answer), re.IGNORECASE) is not None


def identity_words(model: str) -> tuple[str, ...]:
    """What gives a model away: its name, the family in it, and the family's makers."""
    base = model.lower().rsplit("/", 1)[-1].partition(":")[0]
    words = {base} if len(base) > 3 and base not in _ORDINARY else set()
    first = _WORD.match(base)
    start = first[0] if first else ""
    for family in [family for family in _MAKERS if start.startswith(family)] or [start]:
        words.update(_MAKERS.get(family, ()))
        if family not in _ORDINARY and len(family) > 2:
            words.add(family)
    return tuple(sorted(words))


def without_names(answer: str, models: Iterable[str]) -> str:
    """`answer` with everything blacked out that gives one of the `models` away, and the version behind a name."""
    words = sorted({word for model in models for word in identity_words(model)}, key=len, reverse=True)
    if not words:
        return answer
    return re.sub(_any_of(tuple(words)) + _VERSION, _blacked, _spelled(answer), flags=re.IGNORECASE)


def _blacked(found: re.Match[str]) -> str:
    """Marks of emphasis within a name stay, so that those around it still come in pairs."""
    marks = re.findall(r"[*~`]+|_(?=[*~`])", found[0])
    return 2 * _BLOCK + "".join(mark + 2 * _BLOCK for mark in marks) if marks else 4 * _BLOCK


def _spelled(answer: str) -> str:
    """`answer` as it is read: letters that are written as HTML entities, or dressed up, are plain letters."""
    plain = _ENTITY.sub(lambda found: char if _is_told(char := unescape(found[0])) else found[0], answer)
    return _DRESSED.sub(lambda found: normalize("NFKC", found[0]), plain)


def _is_told(char: str) -> bool:
    """Is it a letter, or nothing to be seen, rather than what the page would take for its own?"""
    return char.isalnum() or (len(char) == 1 and category(char) == "Cf")


def _any_of(words: tuple[str, ...]) -> str:
    """A family's name may be followed by its version: llama3, Qwen2.5. No letter may touch it."""
    return rf"(?<![a-z])(?:{'|'.join(map(_dressed, words))})(?![a-z])"


def _dressed(word: str) -> str:
    """`word` with anything between its letters that is not seen; in a short run of them, with no marks."""
    return _UNSEEN.join(
        (_UNSEEN if len(run) > _SHORT else f"(?:{_BLANK})*+").join(map(re.escape, run)) for run in _RUN.findall(word)
    )
