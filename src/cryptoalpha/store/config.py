"""Settings of the store: what the bar gate does about each fault it finds."""

from __future__ import annotations

from typing import Literal, Self

from cryptoalpha.core.config import Count, Positive, Section

Policy = Literal["refuse", "repair", "report"]
Fault = Literal[
    "impossible_value",
    "impossible_range",
    "future",
    "open_bar",
    "off_grid",
    "unsorted",
    "duplicate",
    "conflicting_duplicate",
    "known_too_early",
    "bad_wick",
    "jump",
    "taker_volume",
    "gap",
    "zero_volume",
]


class BarGateConfig(Section):
    """[store.bar_gate] What happens to bars that no honest market printed: `refuse` stops, `repair` does what is written below, `report`
    leaves the bar as it is. Everything is counted and reported, whatever the policy."""

    impossible_value: Literal["refuse", "repair"] = "repair"
    """NaN, infinite or non-positive price, negative volume. Repair drops the bar; nothing is ever filled in."""
    impossible_range: Literal["refuse", "repair"] = "repair"
    """High below, or low above, open or close. Repair drops the bar."""
    future: Literal["refuse", "repair"] = "repair"
    """The bar opens after now. Repair drops it."""
    open_bar: Literal["refuse", "repair"] = "repair"
    """The bar has not closed yet, as the last row of most candle endpoints. Repair drops it until it has."""
    off_grid: Literal["refuse", "repair"] = "repair"
    """The bar does not open on a multiple of its length (weeks: on a Monday). Repair drops it."""
    unsorted: Literal["refuse", "repair"] = "repair"
    """The bar comes after a later one. Repair sorts by open time."""
    duplicate: Literal["refuse", "repair"] = "repair"
    """The same bar again. Repair keeps the first."""
    conflicting_duplicate: Literal["refuse", "repair"] = "repair"
    """Two different bars for one time. Repair quarantines both: which is true cannot be known."""
    known_too_early: Literal["refuse", "repair"] = "repair"
    """The bar claims to be known before it closed. Repair moves `known_at` to the close."""
    bad_wick: Policy = "repair"
    """High or low wildly out of line with open, close and the bars before. Repair clips the wick and names the bar."""
    jump: Policy = "repair"
    """The close jumps away from the last accepted one and no volume backs it. Repair quarantines the bar; the next bar decides which level
    goes on, but the bar stays absent, because nobody could have known at the time."""
    taker_volume: Literal["refuse", "repair"] = "repair"
    """Taker-bought volume is negative, infinite or above the volume. Repair marks it unknown (NaN)."""
    gap: Literal["refuse", "report"] = "report"
    """Bars are absent, such as in an outage. Marked and counted, never filled."""
    zero_volume: Literal["refuse", "report"] = "report"
    """Nothing traded. If that holds for all bars they are index or mark prices, not trades."""

    wick_ratio: Positive = 2.0
    """A wick is suspect where it takes the price to less than 1/this or more than this times the nearer of open and close. At 2 hourly bars
    of the crash of 12 March 2020 pass and its misprints do not."""
    wick_ranges: Positive = 20.0
    """... and also exceeds this many typical ranges (median log range of the bars before); matters for long bars."""
    wick_clip_ranges: Positive = 5.0
    """A bad wick is cut to this many typical ranges beyond open and close: a wide bar, but not a record."""
    jump_ratio: Positive = 1.5
    """A close more than this times, or less than 1/this of, the last accepted close is a jump."""
    jump_volume_multiple: Positive = 3.0
    """A jump traded on at least this many times the median volume of the bars before is believed at once. Large moves are traded heavily
    (the two real hourly jumps of 2019-2021 among eight coins at 114 and 253 times the median), misprints are not."""
    window: Count = 168
    """How many bars before count as typical; a week of hours. Only bars before are ever used."""
    min_volume_history: Count = 24
    """Fewer bars than this before a jump are no evidence about volume."""
    examples: Count = 5
    """How many bars of each fault the report prints in full."""

    @classmethod
    def strict(cls) -> Self:
        """Refuse every fault; only outages, quiet bars and the bar still open are the market's own and stay as by default."""
        return cls(
            impossible_value="refuse",
            impossible_range="refuse",
            future="refuse",
            off_grid="refuse",
            unsorted="refuse",
            duplicate="refuse",
            conflicting_duplicate="refuse",
            known_too_early="refuse",
            bad_wick="refuse",
            jump="refuse",
            taker_volume="refuse",
        )

    def policy(self, fault: Fault) -> Policy:
        """What to do about a fault."""
        chosen: Policy = getattr(self, fault)
        return chosen
