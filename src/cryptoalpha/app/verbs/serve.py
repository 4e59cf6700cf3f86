"""`serve`: forecasts over HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from cryptoalpha.app.frame import Frame, verb


def register(app: typer.Typer) -> None:
    verb(app)(serve)


def serve(
    frame: Frame,
    version: Annotated[
        str,
        typer.Option("--version", help="Id, its beginning, or a folder of models [else the champion, else signals.forecast.model]."),
    ] = "",
    canary: Annotated[
        str, typer.Option("--canary", help="Another one, loaded beside it; it answers nothing until the split says so.")
    ] = "",
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on [else lifecycle.serving.host].")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")] = None,
) -> None:
    """Answer windows of bars with forecasts over HTTP until told to end; models can be swapped and canaries tried meanwhile."""
    import asyncio

    from cryptoalpha.app.serving import open_service
    from cryptoalpha.app.trade_session import stopping
    from cryptoalpha.lifecycle.serving.running import listening
    from cryptoalpha.lifecycle.serving.running import serve as run_server

    config = frame.settings.lifecycle.serving
    service, stable = open_service(frame.settings, frame.home, version=version, hide=frame.out.hide, say=frame.out.note)
    at = listening(host or config.host, config.port if port is None else port)
    name, number = at.getsockname()[:2]
    address = f"http://{f'[{name}]' if ':' in name else name}:{number}"

    async def run() -> None:
        end = asyncio.Event()

        def ready() -> None:
            frame.out.note(f"ready: version {service.fleet.stable}")

        working = asyncio.create_task(run_server(service, at, stable=stable, canary=canary, end=end, ready=ready))
        while not working.done():
            await asyncio.wait({working}, timeout=0.1)
            if stop.event.is_set():
                end.set()
        await working

    with stopping() as stop:
        frame.out.note(f"listening on {address}")
        asyncio.run(run())
    answered = service.meter.outcomes()
    lines = [f"{arm}: {outcome} {count:,}" for (arm, outcome), count in answered.items()] or ["no requests"]
    frame.out.result({"address": address, "requests": [[arm, outcome, count] for (arm, outcome), count in answered.items()]}, lines)
    if stop.by_keyboard:
        raise KeyboardInterrupt
