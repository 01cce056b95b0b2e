"""The proxy: any Ollama, OpenAI or Anthropic client, in front of the whole fleet."""

from arena.proxy.answering import turned_away
from arena.proxy.proxy import Proxy
from arena.proxy.table import Route, Rows

__all__ = ["Proxy", "Route", "Rows", "turned_away"]
