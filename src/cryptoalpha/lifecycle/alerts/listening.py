"""Runs the webhook: what was left undone first, then until it is told to stop, giving replicas back in quiet times."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

from cryptoalpha.core.errors import ConfigError, VenueError
from cryptoalpha.lifecycle.alerts.actions import AlertActions
from cryptoalpha.lifecycle.alerts.book import Deed
from cryptoalpha.lifecycle.alerts.webhook import PATH, AlertWebhook

_RELAX_LOOK_SECONDS = 60.0


async def listen(
    actions: AlertActions, token: str, *, host: str, port: int, stop: asyncio.Event, say: Callable[[str], None]
) -> tuple[Deed, ...]:
    """Hear alerts until `stop`; returns all deeds of the book.

    Args:
        port: 0 takes a free one; `say` is told which.

    Raises:
        ConfigError: if the port cannot be had, or the token is too short.
    """
    import uvicorn

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # who runs this decides when it ends

    webhook = AlertWebhook(actions, token)
    for deed in await actions.resume():
        say(f"left undone before: {deed.words} ({deed.state})")
    config = uvicorn.Config(
        webhook.app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=5, server_header=False
    )
    server = Server(config)
    try:
        place = socket.create_server((host, port))
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}", hint="set lifecycle.alerts.port to another port") from None
    with place:
        say(f"alerts are heard at http://{host}:{place.getsockname()[1]}{PATH}")
        serving = asyncio.create_task(server.serve(sockets=[place]))
        stopping = asyncio.create_task(stop.wait())
        try:
            while not (serving.done() or stopping.done()):
                await asyncio.wait({serving, stopping}, timeout=_RELAX_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if not (serving.done() or stopping.done()):
                    await _relax(actions, say)
        finally:
            server.should_exit = True
            stopping.cancel()
            await serving
    return actions.book.deeds()


async def _relax(actions: AlertActions, say: Callable[[str], None]) -> None:
    try:
        deed = await actions.relax()
    except VenueError as error:
        say(f"replicas could not be counted: {error}")
        return
    if deed is not None:
        say(f"{deed.words} ({deed.state})")
