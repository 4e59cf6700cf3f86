"""`alerts`: hears Prometheus' Alertmanager and does something about it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryptoalpha.app.frame import Frame, verb
from cryptoalpha.app.output import Table

if TYPE_CHECKING:
    from cryptoalpha.lifecycle.alerts.book import AlertBook, Deed

TOKEN = "CRYPTOALPHA_ALERTS_TOKEN"
"""Variable that holds the token, where no file does."""


def register(app: typer.Typer) -> None:
    verb(app)(alerts)


def alerts(
    frame: Frame,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option("--port", min=0, max=65_535, help="Port [else lifecycle.alerts.port; 0 = any].")] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help=f"File with the token that Alertmanager must send [else {TOKEN}].")
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Show what was done about alerts instead of listening.")] = False,
) -> None:
    """Hear Alertmanager's webhook: scale inference, propose retraining; each once, and again after a kill."""
    from cryptoalpha.lifecycle.alerts.book import BOOK, AlertBook

    book = AlertBook(frame.home / BOOK)
    kept = book.deeds if (frame.home / BOOK).exists() else tuple
    found = kept() if status else _heard(frame, book, host, port, token_file)
    rows = [(deed.alert, deed.kind, deed.state, deed.words) for deed in found]
    result = [{"alert": d.alert, "kind": d.kind, "state": d.state, "target": d.target, "at": d.at, "words": d.words} for d in found]
    frame.out.result({"deeds": result}, [Table(("alert", "kind", "state", "what"), rows)] if rows else ["nothing was done about any alert"])


def _heard(frame: Frame, book: AlertBook, host: str, port: int | None, token_file: Path | None) -> tuple[Deed, ...]:
    import asyncio
    import time

    from cryptoalpha.app.trade_session import stopping
    from cryptoalpha.lifecycle.alerts.actions import AlertActions
    from cryptoalpha.lifecycle.alerts.listening import listen
    from cryptoalpha.lifecycle.alerts.proposals import into_the_book_of_retraining
    from cryptoalpha.lifecycle.alerts.scalers import scaler_of

    config, token = frame.settings.lifecycle.alerts, _token(frame, token_file)

    async def run() -> tuple[Deed, ...]:
        end, loop = asyncio.Event(), asyncio.get_running_loop()
        waiting = loop.run_in_executor(None, stop.event.wait)
        waiting.add_done_callback(lambda _: end.set())
        actions = AlertActions(book, config, now=time.time_ns, propose=into_the_book_of_retraining(frame.home), scaler=scaler_of(config))
        chosen = config.port if port is None else port
        try:
            return await listen(actions, token, host=host, port=chosen, stop=end, say=frame.out.note)
        finally:
            stop.event.set()  # lets the thread that waits for it end

    with stopping() as stop:
        found = asyncio.run(run())
    if stop.by_keyboard:
        raise KeyboardInterrupt
    return found


def _token(frame: Frame, file: Path | None) -> str:
    """What Alertmanager must send.

    Raises:
        ConfigError: if there is none.
    """
    import os

    from cryptoalpha.core.errors import ConfigError

    if file is not None:
        try:
            found = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not text"
            raise ConfigError(f"the token file {file} cannot be read: {reason}", hint="correct --token-file") from None
    else:
        found = os.environ.get(TOKEN, "")
    if not found:
        raise ConfigError("the alerts' webhook has no token", hint=f"name a file with --token-file, or set {TOKEN}")
    frame.out.hide([found])
    return found
