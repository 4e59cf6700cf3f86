"""What every verb shares: the options `--config --set --seed --json -q -v`, the settings behind them, and how a verb ends.

A verb is a plain function whose first parameter is the `Frame`; `@verb(app)` adds the shared options and turns errors into exit codes:

    def register(app: typer.Typer) -> None:
        verb(app)(backtest)

    def backtest(frame: Frame, since: Annotated[str, typer.Option(help="First bar, YYYY-MM-DD.")] = "") -> None:
        \"\"\"Replay stored history through the very engine that trades live.\"\"\"
        from cryptoalpha.app.backtest import run_backtest      # heavy imports live inside the verb

        with frame.out.progress("replaying") as advance:
            report = run_backtest(frame.settings, since=since, seed=frame.seed, advance=advance)
        frame.out.result(report.as_dict(), report.lines())

Exit codes: 0 done · 1 unexpected · 2 usage or config · 3 data · 4 risk · 5 exchange or network · 6 a validation failed · 130 interrupted.
A verb that found something bad gives its result first and then raises (`audit` on a leak): the document then holds both.

This is the one place besides the engine and the broker call that may catch `Exception`: a user gets one line, a traceback only with `-v`.
"""

from __future__ import annotations

import inspect
import io
import os
import re
import sys
import traceback
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec

import typer

from cryptoalpha.app.output import Output
from cryptoalpha.core.errors import CryptoAlphaError

if TYPE_CHECKING:
    from cryptoalpha.app.settings import Settings

INTERRUPTED = 130
UNEXPECTED = 1
USAGE = 2
PROGRAM = "cryptoalpha"

Parameters = ParamSpec("Parameters")
Body = Callable[Concatenate["Frame", Parameters], None]


class Frame:
    """What a verb is given: `out` to speak with, `settings` and `home`, read when first asked for."""

    def __init__(self, out: Output, *, config: Path | None, overrides: tuple[str, ...], seed: int | None) -> None:
        self.out = out
        self.config = config
        self.overrides = overrides if seed is None else (*overrides, f"engine.seed={seed}")

    @cached_property
    def settings(self) -> Settings:
        """The effective configuration of this run.

        Raises:
            ConfigError: if a source of settings is missing, malformed or names what does not exist.
        """
        from cryptoalpha.app.settings import load_settings

        return load_settings(self.config, overrides=self.overrides, hide=self.out.hide)

    @property
    def seed(self) -> int:
        """The run's seed: `--seed`, else `engine.seed`."""
        return self.settings.engine.seed

    @property
    def home(self) -> Path:
        """Where the store lies: `CRYPTOALPHA_HOME`, else the platform's data directory. Not created by asking."""
        from cryptoalpha.store.home import Home

        return Home.default().root


_PANEL = "Everywhere"
_SHARED: dict[str, tuple[Any, Any]] = {
    "config": (
        Annotated[
            Path | None, typer.Option("--config", "-c", help="YAML file [else ./cryptoalpha.yaml if there is one].", rich_help_panel=_PANEL)
        ],
        None,
    ),
    "set_": (
        Annotated[
            list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="One setting; repeatable.", rich_help_panel=_PANEL)
        ],
        None,
    ),
    "seed": (Annotated[int | None, typer.Option("--seed", min=0, help="Seed of every random stream.", rich_help_panel=_PANEL)], None),
    "json_": (Annotated[bool, typer.Option("--json", help="One JSON document on stdout.", rich_help_panel=_PANEL)], False),
    "quiet": (Annotated[bool, typer.Option("--quiet", "-q", help="No notes on stderr.", rich_help_panel=_PANEL)], False),
    "verbose": (Annotated[bool, typer.Option("--verbose", "-v", help="Tracebacks on stderr.", rich_help_panel=_PANEL)], False),
}


def verb(app: typer.Typer, name: str | None = None) -> Callable[[Body[Parameters]], Body[Parameters]]:
    """Register a function as a verb of `app`, with the shared options in front of the house's exit codes. Returns it unchanged."""

    def register(body: Body[Parameters]) -> Body[Parameters]:
        work: Callable[..., None] = body
        own = list(inspect.signature(body, eval_str=True).parameters.values())[1:]
        keyword = inspect.Parameter.KEYWORD_ONLY
        shared = [inspect.Parameter(key, keyword, default=default, annotation=kind) for key, (kind, default) in _SHARED.items()]
        context = inspect.Parameter("context", keyword, annotation=typer.Context)

        def call(*, context: typer.Context, **given: Any) -> None:
            frame = _open(context, {key: given.pop(key) for key in _SHARED})
            code = _outcome(frame.out, lambda: work(frame, **given))
            if code:
                raise typer.Exit(code)

        parameters = [*(each.replace(kind=keyword) for each in own), *shared, context]
        for each in parameters:
            _show_brackets(each.annotation)
        call.__name__, call.__doc__ = body.__name__, body.__doc__
        call.__annotations__ = {each.name: each.annotation for each in parameters}
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        app.command(name)(call)
        return body

    return register


def run(app: typer.Typer, arguments: list[str]) -> int:
    """Run the command line and return its exit code; usage errors get the same form as all others."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without an arrow still gets the words around it
    try:
        code = app(args=arguments or ["--help"], prog_name=PROGRAM, standalone_mode=False)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else PROGRAM
        out = Output(path.removeprefix(PROGRAM).strip(), as_json=_wants_json(arguments))
        out.fail("UsageError", USAGE, error.format_message(), f"see `{path} --help`")
        return USAGE
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    return int(code or 0)


def _show_brackets(annotation: Any) -> None:
    """Typer hands help texts to Rich, which would take `[else all]` for markup and print nothing."""
    for info in getattr(annotation, "__metadata__", ()):
        if getattr(info, "help", None):
            info.help = re.sub(r"(?<!\\)\[", r"\\[", info.help)


def _open(context: typer.Context, shared: dict[str, Any]) -> Frame:
    """The frame of one call, from its shared options."""
    command = context.command_path.removeprefix(PROGRAM).strip()
    out = Output(command, as_json=shared["json_"], quiet=shared["quiet"], verbose=shared["verbose"])
    return Frame(out, config=shared["config"], overrides=tuple(shared["set_"] or ()), seed=shared["seed"])


def _outcome(out: Output, call: Callable[[], None]) -> int:
    """Run a verb to its end and say how it ended."""
    try:
        call()
        out.finish()
    except CryptoAlphaError as error:
        return _fail(out, type(error).__name__, error.exit_code, str(error), error.hint)
    except KeyboardInterrupt:
        return _fail(out, "Interrupted", INTERRUPTED, "stopped by the keyboard")
    except BrokenPipeError:
        # The reader (`| head`) has what it wanted. Python would complain again when it flushes at exit, so stdout goes nowhere from here.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except typer.Exit as ended:
        return ended.exit_code
    except Exception as error:  # noqa: BLE001  the exit frame: the one line a user gets for what nobody foresaw
        if isinstance(error.__cause__, KeyboardInterrupt):  # Ctrl-C inside a compiled function comes out as a SystemError
            return _fail(out, "Interrupted", INTERRUPTED, "stopped by the keyboard")
        name = type(error).__name__
        return _fail(out, name, UNEXPECTED, " ".join(str(error).split()) or "no message", "run again with -v for the traceback")
    return 0


def _fail(out: Output, kind: str, code: int, message: str, hint: str = "") -> int:
    out.fail(kind, code, message, hint, detail=traceback.format_exc())
    return code


def _wants_json(arguments: list[str]) -> bool:
    """Whether `--json` was asked for, although the arguments could not be parsed."""
    before_end = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in before_end
