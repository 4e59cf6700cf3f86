"""The values that travel between rooms: observation → signal → fused signal → decision → order | refusal → fill → portfolio.

All are frozen msgspec structs that refuse unknown fields. Every one carries `happened_at` (when it was true in the world) and `known_at`
(when we could first have acted on it), both UTC nanoseconds; the engine raises `LookAheadError` for a value known after its clock.

Parents are linked by event id: the journal row a value lies in and its place in that row (`event_id`), so `explain` walks back from a fill.
Values are floats up to `Decision`, `Decimal` from `Order` on. They are encoded as arrays in field order (a third of the size and twice the
speed of named fields, measured on the 525,600-bar oracle): new fields go at the end, with a default.

msgspec checks constraints when it decodes, not when code constructs; decode at every boundary. Types whose fields must agree with each
other check themselves in `__post_init__`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

import msgspec

from cryptoalpha.core.errors import ConfigError, DataError

UnitInterval = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
SignedUnit = Annotated[float, msgspec.Meta(ge=-1.0, le=1.0)]
Side = Literal["buy", "sell"]
OrderType = Literal["market", "limit"]
TimeInForce = Literal["gtc", "ioc", "fok"]
Action = Literal["strong_sell", "sell", "hold", "buy", "strong_buy"]

ROW_SHIFT = 16
"""Low bits of an event id: the place of a value in its journal row. 65,536 values fit in one row."""


def event_id(row: int, index: int) -> int:
    """The id of the value at place `index` of journal row `row`."""
    return (row << ROW_SHIFT) | index


def split_event_id(event: int) -> tuple[int, int]:
    """Journal row and place of an event id."""
    return event >> ROW_SHIFT, event & ((1 << ROW_SHIFT) - 1)


def format_event_id(event: int) -> str:
    """How an event id is shown to people: `row.place`."""
    row, index = split_event_id(event)
    return f"{row}.{index}"


def parse_event_id(text: str) -> int:
    """The inverse of `format_event_id`.

    Raises:
        ConfigError: if `text` is not `row.place`.
    """
    row, _, index = text.partition(".")
    if not (row.isdecimal() and index.isdecimal()) or int(index) >= 1 << ROW_SHIFT:
        raise ConfigError(f"{text!r} is not an event id", hint="event ids look like 1842.7; `cryptoalpha report` lists them")
    return event_id(int(row), int(index))


TRENDS = ("bear", "sideways", "bull")
VOLATILITIES = ("low_volatility", "high_volatility")
REGIMES = tuple((trend, volatility) for trend in TRENDS for volatility in VOLATILITIES)
"""The two axes crossed: the cells of `MarketState.regime`, in its order. `bull`, `high_volatility` … are sums of their cells."""


class Value(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="kind", array_like=True, forbid_unknown_fields=True, gc=False):
    """Base of all travelling values."""

    happened_at: int
    """When it was true in the world, UTC ns."""
    known_at: int
    """When we could first have acted on it, UTC ns; never before `happened_at`."""


# ── observations ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Bar(Value, frozen=True, kw_only=True):
    """One traded bar. `happened_at` is its open, `known_at` its open plus its length plus the venue's lag."""

    instrument: str
    interval: int
    open: float
    high: float
    low: float
    close: float
    volume: float

    def __post_init__(self) -> None:
        inside = self.low <= self.open <= self.high and self.low <= self.close <= self.high  # min() and max() would let a NaN through
        if not (inside and self.low > 0.0 and self.high < float("inf") and 0.0 <= self.volume < float("inf")):
            raise DataError(
                f"bar of {self.instrument} at {self.happened_at}: open {self.open}, high {self.high}, low {self.low}, close {self.close}, "
                f"volume {self.volume} is impossible",
                hint="pass bars through store.bar_gate first; it reports and repairs or refuses them",
            )


class Post(Value, frozen=True, kw_only=True):
    """A text somebody published: a tweet, a Reddit post, a headline. `assets` is empty where it concerns the market as a whole."""

    post_id: str
    source: str
    text: str
    assets: tuple[str, ...] = ()
    url: str = ""
    author: str = ""
    """Who wrote it, as a hash: people are told apart, not kept."""
    reach: float = 0.0
    """Followers of the author, or members of where it stands; 0 where unknown."""
    echo: float = 0.0
    """How often it was liked, repeated or answered by `known_at`."""
    language: str = ""
    """ISO 639-1 where the publisher says so."""
    revision: int = 0
    """Which reading of the same post this is: an edit or newer counts come as a new value."""


class ChainReading(Value, frozen=True, kw_only=True):
    """A named measurement that is not a price: on-chain metric, funding rate, mood index. `asset` is `*` where it is market-wide."""

    asset: str
    metric: str
    value: float
    source: str


class ObservationRef(Value, frozen=True, kw_only=True):
    """Where observations used in a step lie: a stored partition (first 16 hex digits of its sha256) and a row in it.

    The journal keeps references, not copies: the partition is immutable and its hash is in the manifest.
    """

    subject: str
    """Instrument, `asset/metric` or text source the row belongs to."""
    partition: str
    row: int


# ── signals and market state ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Signal(Value, frozen=True, kw_only=True):
    """One source's opinion about one instrument."""

    source: str
    type: str
    """Family of evidence: `price`, `volatility`, `funding`, `mood`, `news`, `chain`, `model`."""
    instrument: str
    value: SignedUnit
    """Direction and strength: −1 certain fall, +1 certain rise."""
    confidence: UnitInterval
    predicted_impact: float
    """Expected move over the horizon in units of the instrument's volatility over that horizon."""
    proposed_action: Action
    horizon: int
    """How far ahead the opinion looks, ns."""
    quantiles: tuple[float, ...] | None = None
    """Quantiles of the move over the source's shortest horizon h, in units of the instrument's volatility σ √h; None where it has none."""
    reference: str = ""
    """The text or window it was read from."""


class MarketState(Value, frozen=True, kw_only=True):
    """What decisions may know about one instrument besides opinions."""

    instrument: str
    price: float
    volatility: float
    """Annualised volatility (365 days) estimated from bars known at `known_at`; NaN while there is too little history."""
    regime: tuple[float, ...] = ()
    """Belief over `REGIMES`, sums to 1; empty while no regime model is running."""
    expected_correlation: float | None = None
    """Mean expected correlation with the rest of the book."""
    recent_cost: float | None = None
    """Average cost paid per unit traded, fraction of notional."""
    features: tuple[float, ...] = ()
    regime_age: float | None = None
    """Expected number of bars since the regime began; None while no regime model is running."""
    regime_change: float | None = None
    """Chance (0–1) that the next bar stands in another regime."""


class FusedSignal(Value, frozen=True, kw_only=True):
    """All opinions about one instrument, weighed into one."""

    instrument: str
    sentiment: SignedUnit
    """Weighted mean of the text and mood sources alone; 0 where there are none."""
    direction: SignedUnit
    volatility: float
    """Annualised volatility expected over the horizon."""
    confidence: UnitInterval
    urgency: UnitInterval
    """How fast the opinion decays relative to the bar length: 1 means act this bar."""
    weights: tuple[tuple[str, float], ...]
    """Weight of each source; absolute values sum to 1."""
    signals: tuple[int, ...] = ()
    """Event ids of the signals that were weighed."""
    market_state: int | None = None
    """Event id of the market state."""
    expected_move: float | None = None
    """Expected log return over `horizon` in units of the volatility over that horizon; None where the fusion names none."""
    horizon: int = 0
    """What `expected_move` looks ahead, ns; 0 where there is none."""


class FusionSearch(Value, frozen=True, kw_only=True):
    """What the searched fusion looked at in one bar, for the whole book, and who was in charge of it."""

    in_charge: str
    """The fusion whose weights acted: `search`, or the baseline that the search has not proved better than."""
    reason: str
    """Why that one: the paired test in words."""
    regime: tuple[float, ...]
    """Belief over `REGIMES` of the book as a whole, as the search read it; empty without a regime model."""
    types: tuple[str, ...]
    """Families of evidence that are weighed, in the order of the weights."""
    weights_before: tuple[float, ...]
    """Weight of each family when the search began."""
    weights_after: tuple[float, ...]
    action: str
    """`hold`, `+news`, `-price`, `reset`, `equal`, `shrink` …"""
    candidates: tuple[tuple[str, int, float, float], ...]
    """(action, visits, prior, value) of every action visited at the root, most visited first."""
    line: tuple[tuple[str, float], ...]
    """The principal line: (action, value) from the root on."""
    simulations: int
    version: str = ""
    """The networks that guided it: digest of the champion's weights; empty while untrained."""


# ── decisions and orders ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Decision(Value, frozen=True, kw_only=True):
    """What an agent wants the book to hold."""

    instrument: str
    agent: str
    target_weight: float
    """Wanted position as a signed fraction of equity."""
    confidence: UnitInterval
    reason: str
    fused: int | None = None
    """Event id of the fused signal."""
    expected_return: float | None = None
    """Expected return per year over cash, a signed fraction, that the size rests on; None where the agent names none."""
    votes: tuple[tuple[str, float, float, float], ...] = ()
    """(agent, target weight it wanted, its share in the decision, what its plan claims to earn: expected discounted log growth, NaN where
    it does not plan), for a decision that several agents took."""
    line: tuple[tuple[float, float], ...] = ()
    """Principal line of the plan behind it: (position in the plan's grid, value) from now on; empty where nobody planned."""


class Order(Value, frozen=True, kw_only=True):
    """An instruction that passed every risk rule. Rounded to the venue's lot and tick already."""

    client_id: str
    instrument: str
    side: Side
    quantity: Decimal
    type: OrderType = "market"
    limit_price: Decimal | None = None
    reduce_only: bool = False
    decision: int | None = None
    """Event id of the decision."""
    binding_limit: str = ""
    """Name of the risk rule that cut the size, empty where nothing did."""
    attempt: int = 0
    worst_price: Decimal | None = None
    """Worst price an entry may be filled at, quote units; None where any price will do, as for a reduction."""
    time_in_force: TimeInForce = "gtc"
    """How long the rest waits: until cancelled, not at all, or the whole order at once or none of it."""
    post_only: bool = False
    """Whether a limit order may only rest: refused where it would trade at once."""

    def __post_init__(self) -> None:
        if not self.quantity > 0:
            raise DataError(f"order {self.client_id} for {self.instrument}: quantity {self.quantity} must be positive")
        if (self.type == "limit") != (self.limit_price is not None):
            raise DataError(
                f"order {self.client_id} for {self.instrument}: a {self.type} order and limit price {self.limit_price} disagree"
            )
        if self.post_only and (self.type == "market" or self.time_in_force != "gtc"):
            raise DataError(f"order {self.client_id} for {self.instrument}: only a limit order that waits can be post-only")


class Refusal(Value, frozen=True, kw_only=True):
    """An order that a risk rule stopped, and which rule."""

    instrument: str
    rule: str
    message: str
    decision: int | None = None
    client_id: str = ""
    """Of the order that ended unfilled, or with a rest; empty where none was made."""


class Sizing(Value, frozen=True, kw_only=True):
    """How the risk gate came from the size an agent wanted to the one it allowed. Sizes are signed fractions of equity."""

    instrument: str
    requested: float
    held: float
    """What the book held when it was asked; NaN where nobody knew its price."""
    allowed: float
    cuts: tuple[tuple[str, float], ...]
    """Every limit that allowed less than was requested, and the size it allowed (≥ 0); then every multiplier below 1 and the size it left.
    """
    binding: str
    """The limit that decided; empty where nothing was cut."""
    decision: int | None = None


class RiskEvent(Value, frozen=True, kw_only=True):
    """A limit, a breaker or the kill switch changed its state."""

    rule: str
    """`kill_switch`, `drawdown_ladder`, `daily_loss` or the name of a breaker."""
    state: str
    """Kill switch: `armed`, `tripping`, `tripped`. Breaker: `closed`, `open`, `half_open`. Ladder: its rung. Daily loss: `normal`,
    `reduce_only`."""
    message: str
    instrument: str = ""
    """Empty where it concerns the whole book."""


class RiskState(Value, frozen=True, kw_only=True):
    """Where the book stands against its limits."""

    limits: tuple[tuple[str, float, float], ...]
    """Name, what is used of it, how much is allowed; both in the limit's own unit."""
    exposure: float
    """Share of the wanted and allowed size that ladder and regime leave, 0–1."""
    mode: Literal["armed", "reduce_only", "tripping", "tripped"]
    value_at_risk: float
    """Of the whole book over the next day at `level`, a positive fraction of equity; NaN where unknown."""
    expected_shortfall: float
    level: float


class Alarm(Value, frozen=True, kw_only=True):
    """A detector says that something is not as it was. It proposes; it never trades."""

    detector: str
    subject: str
    """What was watched: `prediction`, `calibration`, `returns`, a feature's name …"""
    tier: Literal["breaker", "retrain", "champion"]
    """What it is evidence for: stop entering (minutes), train anew (days), question the champion (months)."""
    statistic: float
    threshold: float
    run_length: float
    """Mean number of observations between false alarms that the threshold was set to."""
    message: str


class Fill(Value, frozen=True, kw_only=True):
    """A trade that happened. `spread_cost`, `impact_cost` and `fee` say where the difference to the mid price went, in quote currency."""

    trade_id: str
    client_id: str
    instrument: str
    side: Side
    quantity: Decimal
    price: Decimal
    fee: Decimal
    fee_asset: str
    spread_cost: Decimal = Decimal(0)
    impact_cost: Decimal = Decimal(0)
    order: int | None = None
    """Event id of the order."""
    fee_value: Decimal | None = None
    """The fee in quote currency at the time of the trade, where it was paid in another asset; None: `fee` is in quote currency."""


class FundingPayment(Value, frozen=True, kw_only=True):
    """Funding settled on a perpetual position. Positive amounts are received."""

    instrument: str
    position: Decimal
    rate: float
    amount: Decimal


class Adjustment(Value, frozen=True, kw_only=True):
    """Something outside the run changed what it owns: a person sold its coins, a venue booked dust. Never a trade of the strategy."""

    instrument: str
    quantity: Decimal
    """Base units the book gains (negative: loses)."""
    cash: Decimal
    """Quote units the book gains (negative: loses)."""
    price: Decimal
    """At which it happened, or was valued."""
    source: str
    """Id of the foreign trade, or of the comparison that found it; the same cause has the same id."""
    message: str


class PortfolioState(Value, frozen=True, kw_only=True):
    """Cash and positions after everything known so far, marked to market."""

    cash: Decimal
    positions: tuple[tuple[str, Decimal], ...]
    equity: Decimal
    peak_equity: Decimal
    fees_paid: Decimal = Decimal(0)
    funding_received: Decimal = Decimal(0)

    @property
    def drawdown(self) -> float:
        """Loss from the equity peak as a positive fraction."""
        return float(1 - self.equity / self.peak_equity) if self.peak_equity > 0 else 0.0


class InstrumentRules(Value, frozen=True, kw_only=True):
    """What the venue allows for one instrument. Known from the start of a run."""

    instrument: str
    venue: str
    base: str
    quote: str
    lot: Decimal
    """Smallest step of quantity, base units."""
    tick: Decimal
    """Smallest step of price, quote units."""
    min_notional: Decimal
    perpetual: bool = False


Observation = Bar | Post | ChainReading
Travelling = (
    Bar
    | Post
    | ChainReading
    | ObservationRef
    | Signal
    | MarketState
    | FusedSignal
    | FusionSearch
    | Decision
    | Order
    | Refusal
    | Fill
    | FundingPayment
    | Adjustment
    | PortfolioState
    | InstrumentRules
    | Sizing
    | RiskEvent
    | RiskState
    | Alarm
)
"""Everything the journal can hold."""
