"""The only place that knows Ollama's JSON: requests, lines, counters, errors."""

from arena.ollama.answer import ChatAnswer
from arena.ollama.client import OllamaClient

__all__ = ["ChatAnswer", "OllamaClient"]
