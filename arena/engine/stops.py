"""Stop sequences watched by ourselves, where the answer has to say which of them ended it."""

from __future__ import annotations

from msgspec.structs import replace

from arena.engine.translate import Ending, Event, Piece, Timings, Trouble


class Stops:
    """Lets text through up to the first stop sequence; what may be the beginning of one waits for the next piece.

    llama.cpp does the same, but does not tell a stop sequence from an end of the model's own. `found` is the sequence
    that ended the answer.
    """

    def __init__(self, words: list[str]) -> None:
        self.found: str | None = None
        self._words = [word for word in words if word]
        self._held = ""

    def cut(self, events: list[Event]) -> list[Event]:
        """The events that may be told; after `found` there are none to come. The pieces must carry timings."""
        if not self._words:
            return events
        told: list[Event] = []
        for event in events:
            if isinstance(event, Piece) and event.text:
                text = self._passed(event.text)
                if text or event.thinking:
                    told.append(replace(event, text=text))
                if self.found is not None:
                    return [*told, Ending("stop", event.timings or Timings())]
            else:
                if self._held and not isinstance(event, Trouble):
                    told.append(Piece(self._held, timings=event.timings))
                    self._held = ""
                told.append(event)
        return told

    def _passed(self, text: str) -> str:
        text, self._held = self._held + text, ""
        places = [(at, word) for word in self._words if (at := text.find(word)) >= 0]
        if places:
            at, self.found = min(places)
            return text[:at]
        kept = max((_overlap(text, word) for word in self._words), default=0)
        cut = len(text) - kept
        self._held = text[cut:]
        return text[:cut]


def _overlap(text: str, word: str) -> int:
    """How many characters at the end of `text` may begin `word`."""
    longest = min(len(text), len(word) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(word[:size])), 0)
