"""The bar gate: the door every bar passes before anything is computed from it.

Each fault is refused, repaired or reported by policy (`BarGateConfig`), and always counted in a `GateReport`. Nothing is ever filled in: a
bar that cannot be believed is absent. A verdict on a bar uses that bar and earlier ones only, so that history gated today holds what a
live system would have held then; removing all later bars changes nothing (a property test).

Order of checks: possible values → range → time → order → duplicates → known-at → wicks → jumps → taker volume → gaps and quiet bars. A bar
is counted under the first fault that removes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from cryptoalpha.core.errors import BarGateError
from cryptoalpha.core.time import grid_anchor, interval_name, iso
from cryptoalpha.store.bad_print import Mask, clip_wicks, unbacked_jumps
from cryptoalpha.store.config import BarGateConfig, Fault
from cryptoalpha.store.gate_report import Finding, GateReport
from cryptoalpha.store.tables import BarTable, Times

_PRICES = ("open", "high", "low", "close")


class BarGate:
    """Checks bars of one instrument at a time.

    Args:
        config: what to do about each fault; by default everything is repaired and reported.
    """

    def __init__(self, config: BarGateConfig | None = None) -> None:
        self.config = BarGateConfig() if config is None else config

    def check(self, table: BarTable, *, now: int) -> tuple[BarTable, GateReport]:
        """The bars that may be used, oldest first, and what was found. `now` (UTC ns) decides which bars have closed.

        Raises:
            BarGateError: if a fault is found whose policy is `refuse`; the message names every such fault.
        """
        inspection = _Inspection(self.config)
        accepted = inspection.possible(table, now)
        accepted = inspection.ordered(accepted)
        accepted = inspection.unique(accepted)
        accepted = inspection.believable(accepted)
        longest_gap = inspection.gaps(accepted)
        quiet = accepted.volume == 0.0
        inspection.note("zero_volume", accepted, quiet, "kept", lambda i: "")
        self._refuse(table, inspection.findings)
        return accepted, GateReport(
            instrument=table.instrument,
            interval=table.interval,
            rows_in=len(table),
            rows_out=len(accepted),
            first=int(accepted.open_time[0]) if len(accepted) else None,
            last=int(accepted.open_time[-1]) if len(accepted) else None,
            findings=tuple(inspection.findings),
            longest_gap=longest_gap,
            volume_is_all_zero=bool(len(accepted) and quiet.all()),
            accepted_sha256=bars_sha256(accepted),
        )

    def _refuse(self, table: BarTable, findings: list[Finding]) -> None:
        refused = [finding for finding in findings if self.config.policy(finding.fault) == "refuse"]
        if refused:
            listed = "; ".join(f"{finding.count} × {finding.fault} (first {finding.examples[0]})" for finding in refused)
            raise BarGateError(
                f"{table.instrument} {interval_name(table.interval)}: the bar gate refuses {listed}",
                hint=f"fetch the data again, or choose another policy for {', '.join(finding.fault for finding in refused)}",
            )


class _Inspection:
    """One pass through the gate: each step returns what is left and notes what it found."""

    def __init__(self, config: BarGateConfig) -> None:
        self.config = config
        self.findings: list[Finding] = []

    def note(self, fault: Fault, table: BarTable, which: Mask, action: str, word: Callable[[int], str]) -> None:
        """Record the bars of `table` where `which` holds; `word` describes one of them."""
        places = np.flatnonzero(which)
        if places.size:
            examples = tuple(f"{iso(int(table.open_time[i]))} {word(int(i))}".rstrip() for i in places[: self.config.examples])
            times = tuple(int(time) for time in table.open_time[places])
            self.findings.append(Finding(fault, action, times, examples, int(places.size)))

    def possible(self, table: BarTable, now: int) -> BarTable:
        """Drop bars with impossible values, ranges or times."""
        prices = np.stack([getattr(table, name) for name in _PRICES])
        with np.errstate(invalid="ignore"):
            possible = (np.isfinite(prices) & (prices > 0.0)).all(axis=0) & np.isfinite(table.volume) & (table.volume >= 0.0)
            consistent = (table.high >= np.maximum(table.open, table.close)) & (table.low <= np.minimum(table.open, table.close))
        kept = np.ones(len(table), np.bool_)
        tests: tuple[tuple[Fault, Mask], ...] = (
            ("impossible_value", ~possible),
            ("impossible_range", ~consistent),
            ("future", table.open_time > now),
            ("open_bar", table.open_time + table.interval > now),
            ("off_grid", (table.open_time - grid_anchor(table.interval)) % table.interval != 0),
        )
        for fault, failed in tests:
            self.note(fault, table, kept & failed, "dropped", lambda i: _words(table, i))
            kept &= ~failed
        return table if kept.all() else table.take(kept)

    def ordered(self, table: BarTable) -> BarTable:
        """Sort by open time; bars of one time keep the order they came in."""
        if len(table) == 0:
            return table
        newest_before = np.maximum.accumulate(table.open_time)
        late = table.open_time < newest_before
        self.note("unsorted", table, late, "sorted", lambda i: f"came after {iso(int(newest_before[i]))}")
        return table.take(np.argsort(table.open_time, kind="stable")) if late.any() else table

    def unique(self, table: BarTable) -> BarTable:
        """Keep the first of equal bars, none of differing ones."""
        repeated = np.concatenate([[False], np.diff(table.open_time) == 0])[: len(table)]
        if not repeated.any():
            return table
        group = np.cumsum(~repeated) - 1
        first = np.flatnonzero(~repeated)[group]  # place of the first bar with the same time
        differs = np.zeros(len(table), np.bool_)
        for name in (*_PRICES, "volume", "taker_buy_volume"):
            column = getattr(table, name)
            differs |= ~((column == column[first]) | (np.isnan(column) & np.isnan(column[first])))
        conflicting = np.bincount(group, weights=differs)[group] > 0
        self.note("duplicate", table, repeated & ~conflicting, "dropped", lambda i: "")
        self.note("conflicting_duplicate", table, conflicting, "quarantined", lambda i: _words(table, i))
        return table.take(~repeated & ~conflicting)

    def believable(self, table: BarTable) -> BarTable:
        """Clip bad wicks, quarantine unbacked jumps, and mend what bars claim about knowledge and takers."""
        closed = table.open_time + table.interval
        early = table.known_at < closed
        if early.any():
            self.note("known_too_early", table, early, "moved to the close", lambda i: f"claimed {iso(int(table.known_at[i]))}")
            table = replace(table, known_at=np.maximum(table.known_at, closed))
        table = self._wicks(table)
        jumped = unbacked_jumps(table, self.config)
        if jumped.any():
            keep = self.config.jump == "report"
            before = np.concatenate([table.close[:1], table.close[:-1]])
            self.note("jump", table, jumped, "kept" if keep else "quarantined", lambda i: f"close {before[i]:g} → {table.close[i]:g}")
            table = table if keep else table.take(~jumped)
        taker = table.taker_buy_volume
        with np.errstate(invalid="ignore"):
            impossible = ~np.isnan(taker) & ((taker < 0.0) | (taker > table.volume * (1.0 + 1e-9)))
        if impossible.any():
            self.note("taker_volume", table, impossible, "marked unknown", lambda i: f"{taker[i]:g} of {table.volume[i]:g}")
            table = replace(table, taker_buy_volume=np.where(impossible, np.nan, taker))
        return table

    def _wicks(self, table: BarTable) -> BarTable:
        wicks = clip_wicks(table, self.config)
        if not wicks.is_bad.any():
            return table
        keep = self.config.bad_wick == "report"
        self.note(
            "bad_wick",
            table,
            wicks.is_bad,
            "kept" if keep else "clipped",
            lambda i: f"low {table.low[i]:g} → {wicks.low[i]:g}, high {table.high[i]:g} → {wicks.high[i]:g}",
        )
        return table if keep else replace(table, high=wicks.high, low=wicks.low)

    def gaps(self, table: BarTable) -> int:
        """Note absent bars; returns how many the longest gap has."""
        absent: Times = np.diff(table.open_time) // table.interval - 1
        places = np.flatnonzero(absent)
        if places.size == 0:
            return 0
        starts = table.open_time[places] + table.interval
        examples = tuple(f"{iso(int(starts[k]))} ({int(absent[places[k]])} bars)" for k in range(min(places.size, self.config.examples)))
        times = tuple(int(start) for start in starts)
        self.findings.append(Finding("gap", f"absent in {places.size} gaps", times, examples, int(absent.sum())))
        return int(absent.max())


def bars_sha256(table: BarTable) -> str:
    """A hash of what the bars say (not of where they were stored)."""
    digest = hashlib.sha256(f"{table.instrument} {table.interval} {len(table)}".encode())
    for name in ("open_time", "known_at", *_PRICES, "volume", "taker_buy_volume"):
        column = getattr(table, name)
        digest.update(np.ascontiguousarray(column, "<i8" if column.dtype.kind == "i" else "<f8").tobytes())
    return digest.hexdigest()


def _words(table: BarTable, i: int) -> str:
    return ", ".join(f"{name} {getattr(table, name)[i]:g}" for name in (*_PRICES, "volume"))
