"""How sources use the bar gate: every bar passes it, and what it did is told in one line."""

from __future__ import annotations

from cryptoalpha.store.bar_gate import BarGate
from cryptoalpha.store.tables import BarTable


def through_gate(gate: BarGate, table: BarTable, *, now: int) -> tuple[BarTable, str]:
    """Gate a table; returns the bars that passed and one line that says what was found.

    Raises:
        BarGateError: if the gate's policy is to refuse what it found.
    """
    passed, report = gate.check(table, now=now)
    line = f"{report.lines()[0]}; " + ("; ".join(f"{f.fault}: {f.count} {f.action}" for f in report.findings) or "no faults")
    if report.volume_is_all_zero:
        line += "; all volume is zero: not trades"
    return passed, line
