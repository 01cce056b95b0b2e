"""Does an answer give its model away? Small models like to introduce themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from html import unescape
from typing import Final
from unicodedata import category, normalize

from arena.battle.families import EVERYDAY, identity_words, is_ambiguous

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


_APART: Final = r"(?:&#?\w{1,8};|[^\w.!?\n]|_){0,12}+"
"""Between two words of a sentence."""

_I_AM: Final = (
    r"(?:i am|i['\u2019]m|my name is|my name['\u2019]s|call me|"
    r"you(?: are|['\u2019]re) (?:talking|speaking|chatting) (?:to|with)|"
    r"ich bin|ich hei(?:ß|ss)e|je suis|je m['\u2019]appelle|yo soy|soy|me llamo|io sono|sono|mi chiamo|eu sou|"
    r"我是|我叫)"
)
_OF_ME: Final = (
    r"(?:i am|i['\u2019]m|i was|i have been|i['\u2019]ve been|"
    r"as an? (?:[\w-]+ ){0,3}(?:ai|model|assistant|chatbot|llm)|"
    r"my (?:creator|developer|maker|trainer|base|architecture|model|company|training)s?)"
)
_OF_ME_ABROAD: Final = (
    r"(?:ich bin|ich wurde|je suis|j['\u2019]ai été|soy|fui|he sido|sono|sou|我是)[^.!?\n]{0,100}?"
    r"(?:von|par|por|da|dalla|由)"
)
_MADE: Final = (
    r"(?:creat|made|make|develop|train|built|build|design|releas|provid|engineer|power|program|fine-?tun|introduc|"
    r"maintain|own|model|assistant|chatbot|ai\b|llm)"
)
_LINK: Final = (
    rf"(?:{_MADE}[^.!?\n]{{0,40}}?\b(?:by|from|at)|called|named|known as|based (?:up)?on|built (?:up)?on|version of|"
    rf"variant of|member of|part of|powered by|derived from|fine-?tuned (?:from|on)|(?<=s) (?:at|are)|(?<=r) is)\b"
)
_FILLING: Final = (
    rf"(?:(?:the|an?|our|your|team|researchers|engineers|people|company|at|of|from|just|actually|simply|officially)\b"
    rf"{_APART}){{0,4}}"
)
_KIND: Final = r"(?:ai|model|assistant|language|llm|chatbot|series|family)\b"


def names_itself(answer: str, *names: str) -> bool:
    """Does `answer` give its model away, which has these `names`, in any case and dress?

    Families and makers that are known to all, or ordinary words, do so only where the answer says that it is theirs.
    """
    words, text = identity_words(*names), _spelled(answer)
    plain = {word for word in words if is_ambiguous(word)}
    if words - plain and _search(_any_of(words - plain), text):
        return True
    return _introduces(plain, text)


def without_names(answer: str, models: Iterable[str]) -> str:
    """`answer` with everything blacked out that gives one of the `models` away, and the version behind a name."""
    words, text = identity_words(*models), _spelled(answer)
    everyday = words & EVERYDAY
    told = {word for word in everyday if _introduces({word}, text)}
    hidden = words - everyday | told
    if not hidden:
        return answer
    return re.sub(_any_of(hidden) + _VERSION, _blacked, text, flags=re.IGNORECASE)


def _introduces(words: AbstractSet[str], text: str) -> bool:
    """Does the text say of itself that one of `words` is its name or its maker?"""
    if not words or not _search(_any_of(words), text):  # most answers end here, which is much cheaper
        return False
    return any(_search(pattern, text) for pattern in _introductions(_any_of(words)))


def _introductions(name: str) -> list[str]:
    """Sentences in which an answer tells its own name or maker; `name` is a pattern of it."""
    return [
        rf"(?<![a-z]){_I_AM}{_APART}(?:(?:just|actually|simply|called|named|known as)\b{_APART})*{name}(?!-[a-z]{{4}})",
        rf"(?<![a-z]){_I_AM}{_APART}(?:the|an?|your){_APART}{name}{_VERSION}{_APART}{_KIND}",
        rf"(?<![a-z]){_OF_ME}\b[^.!?\n]{{0,120}}?{_LINK}{_APART}{_FILLING}{name}",
        rf"(?<![a-z]){_OF_ME_ABROAD}{_APART}{name}",
        rf"(?<![a-z])(?:based|built|fine-?tuned) (?:up)?(?:on|from){_APART}(?:the )?{name}{_APART}v?\d",
        rf"\A\W*{_MADE}\w* (?:and \w+ )?by{_APART}{_FILLING}{name}",
        rf"(?<![a-z])as{_APART}{name}{_VERSION}{_APART}i\b",
        rf"{name}[^.!?\n]{{0,30}}?\b(?:(?:created|made|trained|developed|built|designed) me|"
        r"(?:is|are) my (?:creator|maker|developer)s?)\b",
    ]


def _search(pattern: str, text: str) -> re.Match[str] | None:
    return re.search(pattern, text, re.IGNORECASE)


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


def _any_of(words: Iterable[str]) -> str:
    """A family's name may be followed by its version: llama3, Qwen2.5. No letter may touch it."""
    longest_first = sorted(words, key=lambda word: (-len(word), word))
    return rf"(?<![a-z])(?:{'|'.join(map(_dressed, longest_first))})(?![a-z])"


def _dressed(word: str) -> str:
    """`word` with anything between its letters that is not seen; in a short run of them, with no marks."""
    return _UNSEEN.join(
        (_UNSEEN if len(run) > _SHORT else f"(?:{_BLANK})*+").join(map(re.escape, run)) for run in _RUN.findall(word)
    )
