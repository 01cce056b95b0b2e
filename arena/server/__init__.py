"""The HTTP server: uvicorn under our own limits, deadlines and shutdown."""

from arena.server.limits import Limits
from arena.server.serve import Application, Server, bind, serve

__all__ = ["Application", "Limits", "Server", "bind", "serve"]
