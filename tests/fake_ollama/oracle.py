"""What the fake says: token i is a pure function of (seed, i), so a test knows the exact text without asking."""

from __future__ import annotations

import hashlib

WORDS = (
    "arena", "naïve", "column", "日本", "stream", "Größe", "answer", "🙂", "привет", "model", "Ω", "token",
    "عربي", "quiet", "élan", "river", "한국", "stone", "👩‍🚀", "light", "ñandú", "paper", "𝛑", "cloud",
)  # fmt: skip


def draw(seed: int, index: int, below: int) -> int:
    """A number in 0..below-1 that depends on (seed, index) alone."""
    digest = hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % below


def token(seed: int, index: int, size: int | None = None) -> str:
    """Token `index` of the text `seed`: a word after a space, or exactly `size` UTF-8 bytes when given."""
    word = WORDS[draw(seed, index, len(WORDS))]
    piece = word if index == 0 else f" {word}"
    if size is None:
        return piece
    raw = (piece.encode() * (size // len(piece.encode()) + 1))[:size]
    whole = raw.decode("utf-8", "ignore")
    return whole + "." * (size - len(whole.encode()))


def tokens_of(n: int, seed: int = 1, size: int | None = None) -> tuple[str, ...]:
    """The first `n` tokens of the text `seed`."""
    return tuple(token(seed, index, size) for index in range(n))


def text_of(n: int, seed: int = 1, size: int | None = None) -> str:
    """The whole text that `fx-ok:n-<n>_seed-<seed>` answers; `size` is bytes per token."""
    return "".join(tokens_of(n, seed, size))


def checksum(text: str) -> str:
    """SHA-256 of the text's UTF-8 bytes in hex, as the last line's `fx_sha256`."""
    return hashlib.sha256(text.encode()).hexdigest()
