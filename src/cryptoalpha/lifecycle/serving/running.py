"""Runs the server: a port, a model that loads while health is answered already, and an end that loses nothing.

Told to end, it first denies readiness and goes on answering (`drain_seconds`), then takes no new connection, answers what is under way
(`grace_seconds`), and ends its models' processes last.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.lifecycle.serving.application import Service, application
from cryptoalpha.lifecycle.serving.config import ServingConfig

_KEEP_ALIVE_SECONDS = 30
_MOST_CONNECTIONS = 512


class _Server(uvicorn.Server):
    """Signals are the caller's business."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
        ConfigError: if it cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except (OSError, OverflowError) as error:
        found.close()
        taken = getattr(error, "errno", None) == errno.EADDRINUSE
        why = "is taken" if taken else f"cannot be had ({error})"
        raise ConfigError(f"port {port} of {host} {why}", hint="choose another with --port, or lifecycle.serving.port") from None
    found.listen(_MOST_CONNECTIONS)
    found.setblocking(False)
    return found


async def serve(
    service: Service, at: socket.socket, *, stable: str, canary: str, end: asyncio.Event, ready: Callable[[], None] = lambda: None
) -> None:
    """Serve until `end` is set.

    Args:
        stable, canary: names of versions; no canary if empty.
        ready: called once the first version answers.

    Raises:
        ConfigError, ModelError: if the first versions cannot be found or loaded.
    """
    server = _server(application(service), service.config)
    serving = asyncio.create_task(server.serve(sockets=[at]))
    loading = asyncio.create_task(service.fleet.open(stable, canary))
    ending = asyncio.create_task(end.wait())
    try:
        await asyncio.wait({serving, loading, ending}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
            ready()
            await asyncio.wait({serving, ending}, return_when=asyncio.FIRST_COMPLETED)
        service.draining = True
        if not serving.done() and loading.done():
            await asyncio.wait({serving}, timeout=service.config.drain_seconds)
    finally:
        for task in (loading, ending):
            task.cancel()
        server.should_exit = True
        await asyncio.wait({serving, loading})
        await service.fleet.close()
    serving.result()


def _server(app: Starlette, config: ServingConfig) -> _Server:
    return _Server(
        uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, lifespan="off", timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=round(config.grace_seconds), limit_concurrency=_MOST_CONNECTIONS, http="h11", loop="asyncio",
            ws="none",
        )
    )  # fmt: skip
