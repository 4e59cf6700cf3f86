"""What the bar gate found and did: for people in lines, for programs as a dictionary, never silent."""

from __future__ import annotations

from dataclasses import dataclass

from cryptoalpha.core.time import interval_name, iso
from cryptoalpha.store.config import Fault


@dataclass(frozen=True)
class Finding:
    """One kind of fault: how many bars have it, when they opened, what was done, and the first few in words."""

    fault: Fault
    action: str
    times: tuple[int, ...]
    """Open times of all bars concerned, UTC ns; for a gap the first absent one of each run."""
    examples: tuple[str, ...]
    count: int
    """Bars concerned; for a gap the absent bars."""


@dataclass(frozen=True)
class GateReport:
    """The verdict on one instrument's bars. `accepted_sha256` is a hash of what was let through."""

    instrument: str
    interval: int
    rows_in: int
    rows_out: int
    first: int | None
    last: int | None
    findings: tuple[Finding, ...]
    longest_gap: int
    """Absent bars in the longest gap."""
    volume_is_all_zero: bool
    accepted_sha256: str

    def count(self, fault: Fault) -> int:
        """How many bars have this fault."""
        return sum(finding.count for finding in self.findings if finding.fault == fault)

    def times(self, fault: Fault) -> tuple[int, ...]:
        """When the bars with this fault open, UTC ns."""
        return tuple(time for finding in self.findings if finding.fault == fault for time in finding.times)

    @property
    def is_clean(self) -> bool:
        """True where every bar passed as it came; gaps and quiet bars are the market's own."""
        return all(finding.fault in ("gap", "zero_volume") for finding in self.findings)

    def lines(self) -> list[str]:
        """The report for people: one line of counts, then one per fault."""
        span = f", {iso(self.first)} to {iso(self.last)}" if self.first is not None and self.last is not None else ""
        lines = [f"{self.instrument} {interval_name(self.interval)}: {self.rows_out} of {self.rows_in} bars accepted{span}"]
        for finding in self.findings:
            more = f" and {len(finding.times) - len(finding.examples)} more" if len(finding.times) > len(finding.examples) else ""
            lines.append(f"  {finding.fault}: {finding.count} {finding.action}: {'; '.join(finding.examples)}{more}")
        if self.volume_is_all_zero:
            lines.append(
                "  all volume is zero: these are index or mark prices, not trades; features of volume and market impact mean nothing"
            )
        return lines

    def to_dict(self) -> dict[str, object]:
        """The report for programs; times as ISO text."""
        return {
            "instrument": self.instrument,
            "interval": interval_name(self.interval),
            "rows_in": self.rows_in,
            "rows_out": self.rows_out,
            "first": None if self.first is None else iso(self.first),
            "last": None if self.last is None else iso(self.last),
            "faults": {
                finding.fault: {"count": finding.count, "action": finding.action, "examples": list(finding.examples)}
                for finding in self.findings
            },
            "longest_gap": self.longest_gap,
            "volume_is_all_zero": self.volume_is_all_zero,
            "accepted_sha256": self.accepted_sha256,
        }
