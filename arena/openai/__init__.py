"""Servers that speak OpenAI's HTTP API (vLLM, llama.cpp's server, LM Studio ...), with OllamaClient's face."""

from arena.openai.answer import ChatAnswer
from arena.openai.client import OpenAIClient
from arena.openai.failures import Unsupported

__all__ = ["ChatAnswer", "OpenAIClient", "Unsupported"]
