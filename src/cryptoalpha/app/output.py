"""Where a verb's words go: the result to stdout, everything else to stderr, and no secret to either.

A verb gives its result once, as a mapping for programs and as lines or `Table`s for people. With `--json` stdout carries exactly one
document, `{schema, command, ok, result, warnings}`, or on failure `{schema, command, ok: false, error, warnings}` (with `result` where the
verb had one, such as a failed audit that says what leaked). Progress lives on stderr: a bar on a terminal, a line now and then elsewhere.

Imports nothing heavy: a broken environment must still be able to say so.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, TextIO

SCHEMA = 1
"""Version of the JSON documents; it changes when a key changes meaning or goes away."""

MASK = "**********"
"""What is printed in place of a secret."""

LONGEST_WORD = 12
"""Letters up to which a secret made of nothing else may be a word of our own texts."""

SECONDS_BETWEEN_LINES = 30.0
"""How often a verb that writes to a file or a pipe says where it stands: whoever looks must be able to tell busy from stuck."""


@dataclass(frozen=True)
class Table:
    """Rows for people: a header and cells, already formatted. Columns whose cells all look like numbers are set to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    title: str = ""

    def lines(self) -> list[str]:
        """The table as aligned text, without a trailing newline."""
        cells = [[str(cell) for cell in row] for row in self.rows]
        widths = [max([len(name), *(len(row[place]) for row in cells)]) for place, name in enumerate(self.columns)]
        right = [bool(cells) and all(_looks_numeric(row[place]) for row in cells) for place in range(len(self.columns))]

        def line(parts: Sequence[str]) -> str:
            aligned = (part.rjust(width) if flush else part.ljust(width) for part, width, flush in zip(parts, widths, right, strict=True))
            return "  ".join(aligned).rstrip()

        head = [self.title] if self.title else []
        return [*head, line(self.columns), "  ".join("─" * width for width in widths), *(line(row) for row in cells)]


class Bar:
    """A progress bar in hand: call it with steps, or say with `at` where it stands."""

    def __init__(self, show: Callable[[int, int | None, str], None], total: int | None = None, title: str = "") -> None:
        self._show, self._total, self._title = show, total, title
        self._done = 0

    def __call__(self, steps: int) -> None:
        self.at(self._done + steps, self._total, self._title)

    def at(self, done: int, total: int | None, title: str) -> None:
        """So much is done, of so much, and this is what it is about."""
        self._done, self._total, self._title = done, total, title
        self._show(done, total, title)

    def words(self) -> str:
        """Where it stands, for who cannot see a bar."""
        return f"{self._title}: {min(self._done / self._total, 1.0):.0%}" if self._total else self._title


class Output:
    """One verb's voice. `as_json` wants a single document; `quiet` drops notes; `verbose` adds tracebacks."""

    def __init__(
        self,
        command: str,
        *,
        as_json: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
    ) -> None:
        self.command = command
        self.as_json = as_json
        self.quiet = quiet
        self.verbose = verbose
        self._stdout = stdout or sys.stdout
        self._stderr = stderr or sys.stderr
        self._secrets: set[str] = set()
        self._warnings: list[str] = []
        self._result: object = None
        self._has_result = False

    def hide(self, secrets: Iterable[str]) -> None:
        """Never print these texts, whoever tries; shorter than four characters are left alone, they would blank out ordinary words.

        One that may be a word itself (up to `LONGEST_WORD` letters and nothing else) is masked where it stands alone, not inside a longer
        name: a key named `secret` must not turn `credentials.api_secret` into a riddle.
        """
        self._secrets.update(secret for secret in secrets if len(secret) >= 4)

    def redact(self, text: str) -> str:
        """`text` with every known secret masked, the longest first."""
        for secret in sorted(self._secrets, key=lambda value: (-len(value), value)):
            if len(secret) <= LONGEST_WORD and secret.isalpha():
                text = re.sub(rf"(?<![A-Za-z0-9_]){re.escape(secret)}(?![A-Za-z0-9_])", MASK, text)
            else:
                text = text.replace(secret, MASK)
        return text

    def result(self, value: Mapping[str, object], text: str | Table | Sequence[str | Table] = ()) -> None:
        """Say what the verb found: `value` for programs, `text` for people. With `--json` it is printed when the verb ends."""
        self._result, self._has_result = value, True
        if self.as_json:
            return
        blocks = [text] if isinstance(text, str | Table) else text
        for block in blocks:
            for line in block.lines() if isinstance(block, Table) else [block]:
                self._say(line, self._stdout)

    def say(self, text: Sequence[str | Table]) -> None:
        """Part of the result for people, printed as soon as it is there; with `--json` nothing."""
        if not self.as_json:
            self.result({}, text)
            self._stdout.flush()

    def bare(self, document: Mapping[str, object], text: str | Table | Sequence[str | Table] = ()) -> None:
        """Like `result`, but with `--json` the document is printed as it is, for verbs whose format is fixed elsewhere (`bench`)."""
        if self.as_json:
            self._say(json.dumps(_mask(plain(document), self.redact), ensure_ascii=False, allow_nan=False, indent=2), self._stdout)
            return
        self.result(document, text)

    def line(self, value: Mapping[str, object], text: str) -> None:
        """Stream one event: NDJSON with `--json`, a line of text otherwise; flushed at once."""
        self._say(json.dumps(plain(value), ensure_ascii=False, allow_nan=False) if self.as_json else text, self._stdout)
        self._stdout.flush()

    def warn(self, message: str) -> None:
        """Say what the reader should doubt; goes to stderr and into the JSON document."""
        self._warnings.append(message)
        self._say(f"warning: {message}", self._stderr)

    def note(self, message: str) -> None:
        """Say what is going on; stderr, dropped by `-q`."""
        if not self.quiet:
            self._say(message, self._stderr)

    @contextmanager
    def progress(self, title: str, total: int | None = None) -> Iterator[Bar]:
        """A progress bar on stderr; calling what it yields with a number of steps moves it. Without a terminal a line every half minute;
        with `--json` and with `-q` silent."""
        if self.as_json or self.quiet or not self._stderr.isatty():
            bar = Bar(lambda done, total, title: None, total, title)
            with nullcontext() if self.as_json or self.quiet else self._lines(bar):
                yield bar
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(file=self._stderr), transient=True) as bars:
            task = bars.add_task(title, total=total)
            yield Bar(lambda done, total, title: bars.update(task, completed=done, total=total, description=title), total, title)

    @contextmanager
    def _lines(self, bar: Bar) -> Iterator[None]:
        """Say now and then, from a thread, where `bar` stands, while the block runs."""
        over, began = threading.Event(), time.monotonic()

        def say() -> None:
            while not over.wait(SECONDS_BETWEEN_LINES):
                self.note(f"{bar.words()}, {time.monotonic() - began:.0f} s so far")
                self._stderr.flush()

        thread = threading.Thread(target=say, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def finish(self) -> None:
        """Print the JSON document of a verb that succeeded, and flush."""
        if self.as_json and self._has_result:
            self._document({"ok": True, "result": self._result, "warnings": self._warnings})
        self._stdout.flush()

    def fail(self, kind: str, code: int, message: str, hint: str = "", detail: str = "") -> None:
        """Print what went wrong: one line and its hint for people, one document for programs; `detail` (a traceback) only with `-v`."""
        if self.verbose and detail:
            self._say(detail.rstrip(), self._stderr)
        self._say(f"{kind}: {message}", self._stderr)
        if hint:
            self._say(f"  → {hint}", self._stderr)
        if self.as_json:
            error = {"type": kind, "code": code, "message": message, "hint": hint}
            found = {"result": self._result} if self._has_result else {}
            self._document({"ok": False, "error": error, **found, "warnings": self._warnings})
        self._stdout.flush()

    def _document(self, body: Mapping[str, object]) -> None:
        document = {"schema": SCHEMA, "command": self.command, **body}
        self._say(json.dumps(_mask(plain(document), self.redact), ensure_ascii=False, allow_nan=False, indent=2), self._stdout)

    def _say(self, text: str, stream: TextIO) -> None:
        stream.write(self.redact(text) + "\n")


def plain(value: Any) -> Any:
    """`value` in JSON's own types: numbers that are not finite become null, `Decimal` keeps its digits as text, records become objects."""
    if value is None or isinstance(value, bool | int | str):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Decimal | Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "__struct_fields__"):  # msgspec
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if hasattr(value, "tolist"):  # NumPy arrays and scalars
        return plain(value.tolist())
    raise TypeError(f"a result holds a {type(value).__name__}, which JSON has no form for")


def _mask(value: Any, redact: Callable[[str], str]) -> Any:
    """Redact inside a document before it is encoded, where escapes could hide a secret from a plain search."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact(key): _mask(item, redact) for key, item in value.items()}
    return [_mask(item, redact) for item in value] if isinstance(value, list) else value


def _looks_numeric(cell: str) -> bool:
    return cell.strip() in ("", "–", "-") or cell.strip().lstrip("+-−").replace(",", "").rstrip("%×").replace(".", "", 1).isdigit()
