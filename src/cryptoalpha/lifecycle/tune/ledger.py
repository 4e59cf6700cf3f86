"""How often have these data been asked? Every look counts, because the best of many worthless strategies looks good.

    ledger = TrialLedger(home / "trials.sqlite", now=time.time_ns)
    trials = ledger.enter(look)                     # before anything is tried: one that is killed has looked, too
    ledger.settle(look, "done", daily)
    ledger.looks(data, since, until).deflated(daily.returns)

The ledger holds each distinct configuration tried on each data set and period, however it ended: backtests, trials of a search, pruned and
failed ones too. Whatever shares a bar with a period counts for it, for moving its ends by a day does not make data new. Where a look came
to an end, its daily returns are kept: their Sharpe ratios deflate the winner's, and their columns tell how often picking overfits.

Source: Bailey & López de Prado (2014), "The deflated Sharpe ratio", for what the number of trials and their spread are needed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite, sqrt
from pathlib import Path
from typing import Literal

import numpy as np

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import DAY
from cryptoalpha.monitoring.daily import Floats
from cryptoalpha.monitoring.ratios import NAN, deviation
from cryptoalpha.monitoring.significance import deflated_sharpe_ratio, expected_max_sharpe, sharpe_moments
from cryptoalpha.store.sqlite import Schema, open_database, sqlite_errors

State = Literal["running", "done", "pruned", "failed"]
"""`running` is what stands of a look that was killed, too: nobody is left who could say more."""

SCHEMA = Schema(
    name="trial ledger",
    application_id=0x63617472,
    version=3,
    statements=(
        "CREATE TABLE trial (data TEXT, since INTEGER, until INTEGER, config TEXT, source TEXT NOT NULL, state TEXT NOT NULL, "
        "entered_at INTEGER, sharpe REAL, first_day INTEGER, returns BLOB, PRIMARY KEY (data, config, since, until)) WITHOUT ROWID",
    ),
)
_COUNTED_ONLY = 2
"""Schema of ledgers that knew which looks were taken and not what came of them; they are carried over when they are opened."""


@dataclass(frozen=True)
class Look:
    """One configuration tried on one stretch of one data set.

    Args:
        data: fingerprint of the data set.
        since, until: the stretch that was judged, UTC ns, `until` exclusive.
        config: digest of all that the result depends on besides the data.
        source: who looked: `backtest`, `tune`, …
    """

    data: str
    since: int
    until: int
    config: str
    source: str = "backtest"

    def __post_init__(self) -> None:
        if self.until <= self.since:
            raise ConfigError(f"a look from {self.since} to {self.until} judges nothing", hint="`until` is exclusive and after `since`")


@dataclass(frozen=True, eq=False)
class LookReturns:
    """Daily returns of one look: `first_day` is the 00:00 UTC (ns) at which the first of `returns` `[n]` begins."""

    config: str
    first_day: int
    returns: Floats = field(repr=False)


@dataclass(frozen=True)
class Deflated:
    """A Sharpe ratio beside what luck would have made of as many trials. Ratios are per day."""

    sharpe: float
    days: int
    trials: int
    spread: float
    """Standard deviation across trials that the benchmark is made of."""
    benchmark: float
    """Sharpe ratio that the best of so many worthless trials reaches on average."""
    probability: float
    """That the true ratio lies above the benchmark; .95 is asked for. NaN where the returns do not vary."""


@dataclass(frozen=True, eq=False)
class Looks:
    """All that was looked at in one stretch."""

    trials: int
    """Distinct configurations."""
    states: Mapping[str, int]
    """Looks by how they ended."""
    sources: Mapping[str, int]
    """Looks by who took them."""
    returns: tuple[LookReturns, ...] = field(repr=False)
    """Of every configuration of which they are known, its newest look."""

    @property
    def sharpes(self) -> tuple[float, ...]:
        """Per-day Sharpe ratio of each configuration whose returns are known and vary."""
        found = (sharpe_moments(each.returns).sharpe for each in self.returns if len(each.returns) > 1)
        return tuple(value for value in found if isfinite(value))

    @property
    def spread(self) -> float:
        """Standard deviation (ddof 1) of the trials' per-day Sharpe ratios; NaN where fewer than two are known."""
        return deviation(np.array(self.sharpes)) if len(self.sharpes) > 1 else NAN

    def deflated(self, returns: Floats, *, elsewhere: int = 0) -> Deflated:
        """What daily `returns`, chosen among these trials, are worth.

        The spread is the larger of the trials' own and of that of worthless independent trials of this length. Trials that were pruned have
        no Sharpe ratio, so that the spread of those that came through is too small: the good ones are alike.

        Args:
            elsewhere: trials that the ledger does not know of.
        """
        moments, trials = sharpe_moments(returns), max(self.trials, 1) + elsewhere
        chance = 1.0 / sqrt(moments.observations - 1) if moments.observations > 1 else NAN
        spread = chance if not self.spread > chance else self.spread
        benchmark = expected_max_sharpe(trials, spread=spread) if isfinite(spread) else NAN
        probability = deflated_sharpe_ratio(moments, trials=trials, spread=spread) if isfinite(spread) else NAN
        return Deflated(moments.sharpe, moments.observations, trials, spread, benchmark, probability)

    def matrix(self, since: int, until: int) -> tuple[tuple[str, ...], Floats]:
        """Configurations that have a return for every whole day of the stretch, and those returns `[T, N]` (`monitoring.overfitting`)."""
        first, days = -(-since // DAY) * DAY, until // DAY - -(-since // DAY)
        names, columns = [], []
        for each in self.returns:
            skipped = (first - each.first_day) // DAY
            if days > 0 and skipped >= 0 and skipped + days <= len(each.returns):
                names.append(each.config)
                columns.append(each.returns[skipped : skipped + days])
        return tuple(names), np.stack(columns, axis=1) if columns else np.empty((max(days, 0), 0))


class TrialLedger:
    """The ledger at `path`, which many processes may write at a time; each call opens and closes the file.

    Raises:
        StoreError: from every call, if the file cannot be written, is no ledger or is one of a later version.
    """

    def __init__(self, path: Path, *, now: Callable[[], int]) -> None:
        self.path = path
        self._now = now

    def enter(self, look: Look) -> int:
        """Write a look down before it is taken; how many distinct configurations were tried on these data in periods that overlap, this one
        included. What is known of the same look from before stays."""
        with self._open() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO trial VALUES (?, ?, ?, ?, ?, 'running', ?, NULL, NULL, NULL)",
                (look.data, look.since, look.until, look.config, look.source, self._now()),
            )
            found = connection.execute(
                "SELECT count(DISTINCT config) FROM trial WHERE data = ? AND since < ? AND until > ?", (look.data, look.until, look.since)
            ).fetchone()
        return int(found[0])

    def settle(self, look: Look, state: State, *, first_day: int | None = None, returns: Floats | None = None) -> None:
        """Say how a look ended, with its daily returns if it has any; a look that was never entered is entered.

        Args:
            first_day: 00:00 UTC (ns) at which the first of `returns` begins.
            returns: daily, `[n]`, without gaps.
        """
        if (returns is None) != (first_day is None):
            raise ConfigError("daily returns need the day they begin at, and a first day needs returns")
        sharpe, kept = None, None
        if returns is not None:
            ratio = sharpe_moments(returns).sharpe if len(returns) > 1 else NAN
            sharpe, kept = ratio if isfinite(ratio) else None, np.asarray(returns, "<f8").tobytes()
        with self._open() as connection:
            connection.execute(
                "INSERT INTO trial VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (data, config, since, until) DO UPDATE SET "
                "state = excluded.state, sharpe = coalesce(excluded.sharpe, sharpe), first_day = coalesce(excluded.first_day, first_day), "
                "returns = coalesce(excluded.returns, returns)",
                (look.data, look.since, look.until, look.config, look.source, state, self._now(), sharpe, first_day, kept),
            )

    def looks(self, data: str | None, since: int, until: int) -> Looks:
        """All looks that share a bar with a stretch (UTC ns, `until` exclusive).

        Args:
            data: fingerprint of the data set; None counts those at any data, as one day more makes another data set of the same market.
        """
        where, given = "since < ? AND until > ?", [until, since]
        with self._open() as connection:
            rows = connection.execute(
                f"SELECT config, source, state, first_day, returns FROM trial WHERE {where} AND (? IS NULL OR data = ?) "
                "ORDER BY entered_at, config, since, until",
                (*given, data, data),
            ).fetchall()
        states: dict[str, int] = {}
        sources: dict[str, int] = {}
        newest: dict[str, LookReturns] = {}
        for config, source, state, first_day, kept in rows:
            states[state] = states.get(state, 0) + 1
            sources[source] = sources.get(source, 0) + 1
            if kept is not None:
                newest[config] = LookReturns(config, int(first_day), np.frombuffer(kept, "<f8").astype(np.float64))
        return Looks(len({row[0] for row in rows}), states, sources, tuple(newest.values()))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        _carry_over(self.path)
        connection = open_database(self.path, SCHEMA, durable=True)
        try:
            with sqlite_errors(self.path, SCHEMA.name):
                yield connection
        finally:
            connection.close()


def _carry_over(path: Path) -> None:
    """Give a ledger that only counted the columns of this one, in one transaction; its looks keep counting."""
    if not path.is_file() or _version_of(path) != _COUNTED_ONLY:
        return
    with sqlite_errors(path, SCHEMA.name):
        connection = sqlite3.connect(path, isolation_level=None, timeout=5.0)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            if connection.execute("PRAGMA user_version").fetchone()[0] == _COUNTED_ONLY:  # nobody was faster
                connection.execute("ALTER TABLE trial RENAME TO counted")
                connection.execute(SCHEMA.statements[0])
                connection.execute(
                    "INSERT INTO trial SELECT data, since, until, config, 'backtest', 'done', NULL, NULL, NULL, NULL FROM counted"
                )
                connection.execute("DROP TABLE counted")
                connection.execute(f"PRAGMA user_version = {SCHEMA.version}")
            connection.execute("COMMIT")
        finally:
            connection.close()


def _version_of(path: Path) -> int | None:
    """Schema version of a ledger; None for what is none."""
    with sqlite_errors(path, SCHEMA.name):
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5.0)
        try:
            ours = connection.execute("PRAGMA application_id").fetchone()[0] == SCHEMA.application_id
            return int(connection.execute("PRAGMA user_version").fetchone()[0]) if ours else None
        finally:
            connection.close()
