"""Servers that speak OpenAI's HTTP API (vLLM, llama.cpp's server, LM Studio ...), with OllamaClient's face."""

from arena.openai.answer import ChatAnswer
from arena.openai.body import COMMON
from arena.openai.client import OpenAIClient
from arena.openai.failures import Unsupported

__all__ = ["COMMON", "ChatAnswer", "OpenAIClient", "Unsupported"]
