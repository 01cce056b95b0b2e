"""The proxy: any Ollama, OpenAI or Anthropic client, in front of the whole fleet."""

from arena.proxy.proxy import Proxy
from arena.proxy.table import Route, Rows

__all__ = ["Proxy", "Route", "Rows"]
