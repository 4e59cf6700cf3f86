"""Settings of the `execution` room: what trading costs, how orders fill, what the account starts with.

Where a default is a choice rather than a measurement, its docstring says so.
"""

from __future__ import annotations

from typing import Literal

from cryptoalpha.core.config import Count, Fraction, NonNegative, Positive, PositiveFraction, Section

FillRule = Literal["next_open", "signal_close"]


class CostConfig(Section):
    """[execution.costs] What a trade costs besides the price: `price = open × (1 ± (half_spread + impact))`, then a fee on the
    notional."""

    taker_fee: Fraction = 0.001
    """Fee of an order that takes liquidity, fraction of notional (0–1). 10 basis points: the public spot rate of large venues."""

    maker_fee: Fraction = 0.001
    """Fee of a resting limit order, fraction of notional (0–1). Equal to the taker fee: discounts depend on the account."""

    half_spread: Fraction = 0.0001
    """Half the bid–ask spread, fraction of price (0–1). 1 basis point: typical of the larger pairs, too little for small ones."""

    impact: NonNegative = 1.0
    """Coefficient k of the square-root law `impact = k · daily volatility · sqrt(quantity / daily volume)` (≥ 0). 1 by choice; 0 is
    off."""

    max_participation: Positive | None = 0.1
    """Largest share of a bar's volume one order may take (> 0; none = no limit); the rest waits. A tenth by choice."""

    unknown_volume_slippage: Fraction = 0.001
    """Slippage beyond the half spread where a bar's volume is zero or unknown, or there is too little history for impact, as a fraction of
    price (0–1). 10 basis points: dearer than the usual impact, so that missing data never flatters."""


class LiveConfig(Section):
    """[execution.live] How a real venue is asked, watched and believed."""

    venue: str = "binance"
    """ccxt id of the venue that orders go to: `binance` (spot), `binanceusdm` (perpetuals in USDT)."""

    account: str = ""
    """Your own name for the account. It marks the run, and lets it go on with a new key; empty: the key's fingerprint marks it."""

    timeout_seconds: Positive = 10.0
    """Longest wait for one reply; after that the fate of an order is unknown and it is asked for by its id."""

    reconcile_seconds: Positive = 60.0
    """How often the venue's books are compared with ours; also done at the start, after each lost connection and when asked."""

    alert_after_seconds: NonNegative = 30.0
    """How long the fate of an order may be unknown before a person is told."""

    absence_seconds: NonNegative = 30.0
    """Least time over which an order must be unknown to the venue before it counts as never arrived."""

    absence_answers: Count = 3
    """Least number of "no such order" answers over that time."""

    receive_window_seconds: Positive = 10.0
    """How long a signed request stays valid at the venue (recvWindow): an order may arrive that late, and is not absent before."""

    longest_flight_seconds: Positive = 600.0
    """How long a request can be under way at most, whatever happens to clocks: where the venue's was set back, an order is not absent
    before. Ten minutes: networks keep nothing longer than two (RFC 9293), the rest is for queues at the venue."""

    retry_seconds: Positive = 0.5
    """Wait before an unclear question is asked again; doubles up to `retry_limit_seconds`, with jitter."""

    retry_limit_seconds: Positive = 30.0
    """Longest such wait."""

    settle_seconds: NonNegative = 5.0
    """How long a step waits for the venue's word on orders under way before it decides with what is known."""

    stale_intervals: Positive = 3.0
    """Bars of an instrument that may be missing in a row before it takes no new entries (> 0)."""

    requests_per_minute: Positive = 1200.0
    """Weight of requests the venue allows in a minute, counted as ccxt does (of Binance spot a fifth of the venue's own figures); what is
    kept free of it is `reserved_share`."""

    reserved_share: PositiveFraction = 0.2
    """Share of that budget that only cancels and reductions may use, so that a way out is never refused for asking too much."""

    cancel_on_exit: bool = True
    """Whether entries that still wait at the venue are taken back when the process is told to end. On: nobody watches them meanwhile.
    Reductions stay in either case."""

    close_seconds: NonNegative = 10.0
    """How long an ending process waits for replies under way and for those cancels; what is unanswered then is asked for at the next
    start."""

    clock_skew_seconds: Positive = 1.0
    """Difference of the clocks from which on a person is told."""

    use_stream: bool = True
    """Whether the account's WebSocket is listened to. Off, and while it is down, the books are asked for by REST alone."""

    vouched_key: bool = False
    """Whether a person has looked that the key cannot withdraw, where the venue does not say so. Binance does: there it is asked."""


class ExecutionConfig(Section):
    """[execution] How orders become fills and what the account holds at the start."""

    costs: CostConfig = CostConfig()
    """What a trade costs."""

    fill: FillRule = "next_open"
    """`next_open`: an order decided when bar t is known fills at the open of the next bar. `signal_close` fills at the very close it was
    decided on, which nobody can do: it exists to compare with other engines (oracle A) and for nothing else."""

    initial_cash: Positive = 100_000.0
    """Cash at the start, in units of `quote` (> 0). Large against minimum order sizes, small against the volume of large pairs."""

    quote: str = "USDT"
    """Currency in which cash, fees and equity are counted. Every instrument of a book is quoted in it."""

    funding: bool = True
    """Whether perpetual positions pay and receive funding. On: leaving it out makes carry look free."""

    stale_after_intervals: NonNegative = 1.0
    """How many bar lengths late a market order may still fill (≥ 0). 1: a longer outage makes the decision history, not a plan."""

    allow_live: bool = False
    """Whether real orders may be sent at all. That also takes `trade --live`, CRYPTOALPHA_LIVE=1 and keys that cannot withdraw."""

    live: LiveConfig = LiveConfig()
    """How a real venue is asked."""

    liquidity_half_life_days: Positive = 7.0
    """Half-life, in days, of the running estimates of daily volatility and volume behind the impact (> 0). A week, by choice: it averages
    over the weekly cycle of volume."""
