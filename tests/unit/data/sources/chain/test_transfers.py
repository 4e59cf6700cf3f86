"""What counts as a large transfer, and where it goes."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.streamed import Transfer
from cryptoalpha.data.sources.chain_config import TransfersSection
from cryptoalpha.data.sources.transfers import Labels, LargeTransfers, Sketch


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(50, 3000), share=st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_the_quantile_is_within_five_percent_of_the_exact_one(seed, size, share):
    worths = np.random.default_rng(seed).lognormal(8.0, 3.0, size)
    sketch = Sketch()
    for worth in worths:
        sketch.add(float(worth), window=size)
    exact = np.quantile(worths, share, method="inverted_cdf")
    assert sketch.quantile(share) == pytest.approx(exact, rel=0.05)


def test_only_the_newest_transfers_count_and_memory_is_bounded():
    sketch = Sketch()
    for _ in range(500):
        sketch.add(10.0, window=100)
    for _ in range(200):
        sketch.add(1e9, window=100)
    assert sketch.quantile(0.01) == pytest.approx(1e9, rel=0.05)  # two generations of 100: nothing older is left
    assert (sum(sketch.newer.values()), sum(sketch.older.values())) == (sketch.seen, 100)
    generator = np.random.default_rng(0)
    for worth in 10.0 ** generator.uniform(-300, 300, 20_000):
        sketch.add(float(worth), window=10_000)
    for nonsense in (math.nan, math.inf, -1.0, 0.0):
        sketch.add(nonsense, window=10_000)
    assert len(sketch.older) + len(sketch.newer) <= 2 * 501
    assert sum(sketch.older.values()) + sketch.seen <= 20_000
    assert math.isnan(Sketch().quantile(0.5))


def test_counts_survive_being_written_down():
    sketch = Sketch()
    for worth in (0.5, 1e3, 1e3, 7e6):
        sketch.add(worth, window=3)
    again = msgspec.json.decode(msgspec.json.encode(sketch), type=Sketch)
    assert again == sketch
    assert again.quantile(0.5) == sketch.quantile(0.5)


def test_the_floor_alone_counts_until_a_window_has_been_seen_and_then_the_multiple_too():
    config = TransfersSection(least_usd=1_000.0, least_usd_of={}, quantile=0.5, multiple=3.0, window=10)
    judge = LargeTransfers(config, lambda asset: 2.0)
    for _ in range(9):
        judge.count("BTC", 5_000.0)
    assert judge.least("BTC") == 1_000.0
    judge.count("BTC", 5_000.0)
    assert judge.least("BTC") == pytest.approx(15_000.0, rel=0.05)
    assert judge.least("ETH") == 1_000.0  # counted by asset
    assert judge.worth("BTC", 700.0) == 1_400.0


def test_without_a_price_coins_decide_and_an_asset_that_is_not_named_is_never_large():
    judge = LargeTransfers(TransfersSection(least_coins_of={"BTC": 20.0}), lambda asset: math.nan)
    worth = judge.worth("BTC", 25.0)
    assert math.isnan(worth)
    assert judge.is_large("BTC", 20.0, worth, judge.least("BTC"))
    assert not judge.is_large("BTC", 19.9, worth, judge.least("BTC"))
    assert not judge.is_large("XYZ", 1e12, worth, judge.least("XYZ"))


def transfer(sender: str, receiver: str) -> Transfer:
    return Transfer(
        happened_at=1, known_at=1, asset="ETH", transaction="t:0", amount=1.0, usd=1.0, sender=sender, receiver=receiver, confirmations=1
    )


def test_flows_are_told_by_the_labels_of_both_ends():
    hexadecimal, base58 = "0x" + "aB" * 20, "1NDyJtNTjmwk5xPNhjgAMu4HDHigtobu1s"
    labels = Labels({"kraken": (hexadecimal,), "binance": (base58,)})
    assert labels.of(hexadecimal.lower()) == labels.of(hexadecimal.upper().replace("X", "x")) == "kraken"
    assert labels.of(base58) == "binance"
    assert labels.of(base58.lower()) == base58.lower()  # base58 tells case apart
    assert labels.flow(transfer("someone", "kraken")) == "to_exchange"
    assert labels.flow(transfer("kraken", "")) == "from_exchange"
    assert labels.flow(transfer("kraken", "binance")) == "between_exchanges"
    assert labels.flow(transfer("kraken", "kraken")) == "inside_exchange"
    assert labels.flow(transfer("", "someone")) == "other"


def test_an_address_has_one_owner():
    with pytest.raises(ConfigError, match="belongs to a and b"):
        Labels({"a": ("0xAA",), "b": ("0xaa",)})


def test_the_addresses_that_are_shipped_have_the_form_of_addresses():
    for addresses in TransfersSection().exchanges.values():
        for address in addresses:
            assert len(address) == 42 if address.startswith("0x") else 26 <= len(address) <= 62
