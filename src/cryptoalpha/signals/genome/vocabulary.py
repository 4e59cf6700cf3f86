"""The 16 named tokens of the market genome: what each is called, when a bar carries it, and what it cannot do without.

A rule reads "bar i carries the token if …". What a bar is compared with is made of bars before i; windows of 24 bars end at i. No threshold
was fitted to data: they follow the design of the genome, and `signals.genome.base_rates` says how often each token occurs.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenSpec:
    """One token. `needs` names its inputs: `ohlc`, `volume`, `taker_buy_volume`, `texts`, or metrics of the chain vocabulary.

    `a|b` means that either will do. `departure` says where the house lacks what the design asks for, and what stands in for it.
    """

    name: str
    rule: str
    needs: tuple[str, ...]
    departure: str = ""


TOKENS: tuple[TokenSpec, ...] = (
    TokenSpec("price_increase", "r > 0.5 σ", ("ohlc",)),
    TokenSpec("price_decrease", "r < −0.5 σ", ("ohlc",)),
    TokenSpec("high_volume", "z96(ln volume) > 1", ("volume",)),
    TokenSpec("low_volume", "z96(ln volume) < −1, or no volume at all", ("volume",)),
    TokenSpec("volatility_spike", "volatility of half-life 8, bar i included, > 2 × volatility of half-life 128", ("ohlc",)),
    TokenSpec("consolidation", "ln(highest high / lowest low) of 24 bars / (σ √24) < 20th percentile of its last 512", ("ohlc",)),
    TokenSpec("breakout", "close > highest high of the 64 bars before + 0.25 ATR", ("ohlc",)),
    TokenSpec("breakdown", "close < lowest low of the 64 bars before − 0.25 ATR", ("ohlc",)),
    TokenSpec("accumulation", "F > 90th percentile of its last 512, and flat", ("ohlc", "volume")),
    TokenSpec("distribution", "F < 10th percentile of its last 512, and flat", ("ohlc", "volume")),
    TokenSpec("news_positive", "mean tone of the texts of bar i > 0.3", ("texts",)),
    TokenSpec("news_negative", "mean tone of the texts of bar i < −0.3", ("texts",)),
    TokenSpec(
        "whale_movement",
        "a reading of bar i with z90d(ln(1 + transfers of a million)) > 2; without such counts, with z90d of the value sent to, or from, "
        "exchanges > 2",
        ("whale_transfers|exchange_inflow_usd",),
        "the design counts transfers hour by hour and asks for z > 3; these readings are of whole days, whose sums vary less",
    ),
    TokenSpec(
        "retail_fomo",
        "R24 > σ √24, and the crowd is there: z96(texts of bar i) > 2 with a mean tone > 0.3, or the newest funding rate has z90d > 2",
        ("ohlc", "texts|funding_rate"),
        "the design knows posts of people only; leveraged longs that pay dearly are a crowd too, and on record where posts are not",
    ),
    TokenSpec(
        "institutional_entry",
        "z96(taker buys − taker sells) > 2 and z96(ln volume) > 1, or a reading of bar i with "
        "z90d((outflow − inflow) of exchanges / market cap) > 2",
        ("taker_buy_volume|exchange_outflow_usd",),
        "the design sums the buys in prints above the past 99th percentile; bars hold no prints, so a heavy bar stands for heavy prints, "
        "and coins that leave exchanges for purchases",
    ),
    TokenSpec("regulatory_news", "a text of bar i speaks of regulation (`signals.genome.text_tokens.REGULATION`)", ("texts",)),
)
"""The tokens in the order of their ids, 0 to 15."""

NAMES: tuple[str, ...] = tuple(token.name for token in TOKENS)
"""Their names, by id."""

V = len(TOKENS)
"""How many there are."""


def markdown_table() -> str:
    """The tokens as a Markdown table, one row each, in order."""
    lines = ["| id | token | a bar carries it if | needs | departure |", "|---|---|---|---|---|"]
    for number, token in enumerate(TOKENS):
        needs = ", ".join(need.replace("|", " or ") for need in token.needs)
        lines.append(f"| {number} | `{token.name}` | {token.rule} | {needs} | {token.departure} |")
    return "\n".join(lines)
