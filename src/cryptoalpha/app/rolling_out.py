"""What `deploy canary` and `deploy ab` do: open the book, the back end and the registry, and drive the controller by the clock."""

from __future__ import annotations

import asyncio
import csv
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from cryptoalpha.app.credentials import Hide, reveal
from cryptoalpha.app.output import Table
from cryptoalpha.app.runs import JOURNAL
from cryptoalpha.app.safety import is_finished
from cryptoalpha.app.settings import Settings
from cryptoalpha.core.errors import ConfigError, DataError, DataMissingError
from cryptoalpha.core.time import iso_second
from cryptoalpha.lifecycle.rollout.ab import ABReport, assigned_values, compare_counts, compare_values
from cryptoalpha.lifecycle.rollout.backends import BackendOptions, open_backend
from cryptoalpha.lifecycle.rollout.book import RolloutBook, Transition
from cryptoalpha.lifecycle.rollout.controller import CanaryController
from cryptoalpha.lifecycle.rollout.router import assigned
from cryptoalpha.lifecycle.rollout.split import CANARY, STABLE, TrafficSplit
from cryptoalpha.lifecycle.rollout.state import RolloutState
from cryptoalpha.store.controls import control_state
from cryptoalpha.store.home import Home

PLACE = Path("lifecycle") / "rollout.sqlite"
NAME = "inference"
"""What is rolled out, by campaigns too: one at a time."""


def split_of(settings: Settings, backend: str, url: str, *, hide: Hide) -> TrafficSplit:
    """The back end of the settings.

    Raises:
        ConfigError: if it cannot be opened, or the token's reference leads nowhere.
    """
    secret = settings.credentials.serving_token
    token = "" if secret is None else reveal(secret, "serving_token", hide)
    return open_backend(backend, BackendOptions(settings.lifecycle, time.time_ns, url=url, token=token))


@asynccontextmanager
async def rolling(
    settings: Settings, home: Path, split: TrafficSplit, *, say: Callable[[str], None], now: Callable[[], int] = time.time_ns,
    holder: str = "",
) -> AsyncIterator[CanaryController]:  # fmt: skip
    """A controller over the store's book, held up by a kill that stands; its lease is given back in the end.

    Args:
        holder: who it is, if whoever comes after a kill shall go on at once; nobody else may be it meanwhile.
    """
    with RolloutBook(home / PLACE) as book:
        controller = CanaryController(
            split, book, settings.lifecycle.canary, now=now, holder=holder, name=NAME, say=say,
            guards=lambda: {"no kill stands": not any_kill(home)},
        )  # fmt: skip
        try:
            yield controller
        finally:
            if book.newest(NAME) is not None:
                controller.release()


def any_kill(home: Path) -> bool:
    """Whether a kill stands in a run of this store that trades: no new model takes over meanwhile."""
    journals = [path for path in (*sorted((home / "runs").glob(f"*/{JOURNAL}")), Home(home).journal) if path.is_file()]
    return any(control_state(path).stands for path in journals if not is_finished(path))


async def drive(
    controller: CanaryController, *, look_seconds: float, stop: Callable[[], bool], note: Callable[[str], None]
) -> RolloutState:
    """Look until the rollout is over or somebody asks to stop."""
    state = controller.state
    while not state.is_over and not stop():
        state = await controller.step()
        if controller.trouble:
            note(controller.trouble)
        deadline = time.monotonic() + look_seconds
        while not state.is_over and not stop() and time.monotonic() < deadline:
            await asyncio.sleep(min(0.2, look_seconds))
    return state


def in_rollout(home: Path) -> frozenset[str]:
    """Versions that the newest rollout is about, as it names them: both while it goes on, afterwards the one that was left answering."""
    path = home / PLACE
    if not path.is_file():
        return frozenset()
    with RolloutBook(path) as book:
        found = book.newest(NAME)
    if found is None:
        return frozenset()
    if found.is_over:
        return frozenset({found.canary if found.stage == "promoted" else found.stable})
    return frozenset({found.stable, found.canary})


def known_state(home: Path) -> tuple[RolloutState, tuple[Transition, ...]]:
    """The newest rollout and its story.

    Raises:
        DataMissingError: if there never was one.
    """
    path = home / PLACE
    found = None
    if path.is_file():
        with RolloutBook(path) as book:
            found = book.newest(NAME)
            story = book.story(found.id) if found else ()
    if found is None:
        raise DataMissingError("nothing was ever rolled out", hint="begin with `cryptoalpha deploy canary --canary ID`")
    return found, story


def as_dict(state: RolloutState, story: tuple[Transition, ...]) -> dict[str, Any]:
    """A rollout for programs."""
    return {"rollout": msgspec.to_builtins(state), "story": [msgspec.to_builtins(line) for line in story]}


def tables(state: RolloutState, story: tuple[Transition, ...]) -> list[str | Table]:
    """A rollout for people."""
    rows = [
        (iso_second(line.decided_at), line.before, f"{line.stage} {line.step + 1}" if line.stage == "step" else line.stage, line.reason)
        for line in story
    ]
    return [
        Table(("decided", "from", "to", "why"), rows, f"rollout {state.id}: {state.canary} beside {state.stable}"),
        f"{state.stage}, {state.target.weights.get(CANARY, 0.0):.0%} to the canary: {state.reason}",
    ]


def read_outcomes(path: Path) -> list[tuple[str, float]]:
    """Rows of `key,value` of a CSV file with that header, in the order in which they happened.

    Raises:
        DataMissingError: if there is no such file.
        DataError: naming the first line that is none.
    """
    if not path.is_file():
        raise DataMissingError(f"no file {path}", hint="a CSV with the header key,value")
    rows: list[tuple[str, float]] = []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if not {"key", "value"} <= set(reader.fieldnames or ()):
            raise DataError(f"{path} has columns {reader.fieldnames}", hint="the header must name key and value")
        for number, row in enumerate(reader, start=2):
            try:
                rows.append((row["key"], float(row["value"])))
            except (TypeError, ValueError):
                raise DataError(f"{path} line {number}: {row.get('value')!r} is no number", hint="one key and one number a line") from None
    return rows


async def compare(
    split: TrafficSplit, *, outcomes: Path | None, salt: str, share: float | None, bounds: tuple[float, float] | None, alpha: float,
    larger_is_better: bool,
) -> ABReport:  # fmt: skip
    """An A/B report of what the back end counted under its present split, and of outcomes by key if a file is given.

    Raises:
        ConfigError: if outcomes are given, and neither `salt` nor the back end says what the hash of their keys begins with.
    """
    now = await split.read()
    salt = salt or now.salt
    if outcomes is not None and not salt:
        raise ConfigError(
            "which arm had which key is not known without the salt of the keys",
            hint="--salt, as `salt` of GET /v1/split of the server that answered (the id of the version it began with)",
        )
    measures = list(compare_counts(await split.counts(now.since), alpha=alpha))
    if outcomes is not None:
        weight = now.canary_share if share is None else share
        values: Mapping[str, list[float]] = assigned_values(read_outcomes(outcomes), lambda key: assigned(salt, key, weight))
        measures.append(
            compare_values(
                outcomes.stem, values[STABLE], values[CANARY], alpha=alpha, larger_is_better=larger_is_better, bounds=bounds
            )
        )  # fmt: skip
    return ABReport(now.stable or STABLE, now.canary or CANARY, alpha, tuple(measures))


def ab_table(report: ABReport) -> Table:
    """An A/B report for people."""

    def words(interval: tuple[float, float]) -> str:
        return f"{interval[0]:+.4f} to {interval[1]:+.4f}"

    rows = [
        (
            f"{one.measure} ({one.kind})", f"{one.control:.4f} of {one.control_size:,}", f"{one.treatment:.4f} of {one.treatment_size:,}",
            f"{one.difference:+.4f}", words(one.fixed), words(one.always_valid), one.verdict,
        )
        for one in report.measures
    ]  # fmt: skip
    level = f"{1 - report.alpha:.0%}"
    columns = ("measure", "control", "treatment", "difference", f"{level}, looked at once", f"{level}, at any look", "treatment is")
    return Table(columns, rows, f"{report.treatment} against {report.control}")
