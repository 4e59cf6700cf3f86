"""The verbs of the command line, one file per group; each has `register(app)`. Order here is order in `--help`.

A verb file imports only Typer and `app.frame` at its top; what does the work is imported inside the function, so that `--help` stays fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

from cryptoalpha import __version__

VERBS = (
    "show", "configuration", "health", "data", "train", "models", "retrain", "tune", "research", "trading", "listen",
    "serve", "alerts", "venue", "safety", "deploy",
)  # fmt: skip
"""Modules of this package, by name."""


def build() -> typer.Typer:
    """The Typer application with all verbs."""
    app = typer.Typer(
        name="cryptoalpha",
        help="Multi-modal crypto trading AI that proves what it claims. Not investment advice.",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name in VERBS:
        import_module(f"{__name__}.{name}").register(app)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cryptoalpha {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Options of the program itself; `--version` has done its work before this runs."""
