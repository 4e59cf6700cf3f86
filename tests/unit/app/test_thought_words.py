"""What explain says of votes, searches and regimes; who was in charge when, as the recorder notes it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from cryptoalpha.app.decision_record import DecisionRecord, deciders
from cryptoalpha.app.explain import explain
from cryptoalpha.app.output import plain
from cryptoalpha.app.regime_words import named_beliefs, regime_words
from cryptoalpha.app.thought_words import decision_details, search_details, search_words
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.core.values import Decision, FusedSignal, FusionSearch, MarketState, Refusal, event_id, format_event_id
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.journal_reader import JournalReader

BELIEF = (0.05, 0.10, 0.15, 0.20, 0.35, 0.15)
SEARCH = FusionSearch(
    happened_at=0,
    known_at=HOUR,
    in_charge="ridge",
    reason="evidence 3 of the 20 that the search needs",
    regime=BELIEF,
    types=("price", "news"),
    weights_before=(0.5, 0.25),
    weights_after=(0.6, 0.25),
    action="+price",
    candidates=(("+price", 40, 0.1, 2e-4), ("hold", 24, 0.2, 1e-4)),
    line=(("+price", 2e-4), ("hold", 1e-4)),
    simulations=64,
    version="abcdef0123456789",
)


def decision(**changes: object) -> Decision:
    given = {
        "happened_at": 0, "known_at": HOUR, "instrument": "BTC/USDT", "agent": "council", "target_weight": 0.1, "confidence": 0.5,
        "reason": "2 agents, 90% of their mean left by disagreement", "fused": event_id(1, 1), "expected_return": 0.2,
        "votes": (("garch", 0.2, 0.75, 1e-3), ("rule", 0.1, 0.25, math.nan)), "line": ((0.5, 1e-3), (0.25, 5e-4)),
    }  # fmt: skip
    return Decision(**{**given, **changes})  # type: ignore[arg-type]


def searched(in_charge: str, weights: tuple[float, float]) -> FusionSearch:
    return FusionSearch(
        happened_at=0, known_at=HOUR, in_charge=in_charge, reason=f"{in_charge} it is",
        regime=(), types=("price", "news"), weights_before=(0.5, 0.5),
        weights_after=weights, action="hold", candidates=(), line=(), simulations=64,
    )  # fmt: skip


def test_named_regimes_are_sums_of_their_cells() -> None:
    named = named_beliefs(BELIEF)
    assert named["bull"] == pytest.approx(0.5)
    assert named["bear"] == pytest.approx(0.15)
    assert named["high_volatility"] == pytest.approx(0.45)
    assert sum(named[name] for name in ("bear", "sideways", "bull")) == pytest.approx(1.0)
    assert named_beliefs((0.5, 0.5)) == {}


def test_a_belief_in_words_names_trend_volatility_cell_age_and_change() -> None:
    words = regime_words(BELIEF, 12.4, 0.031)
    assert "bull 50%" in words
    assert "high volatility 45%" in words
    assert "likeliest bull, low volatility (35%)" in words
    assert "about 12 bars" in words
    assert "3.1% chance of change" in words
    assert regime_words(()) == ""
    assert regime_words((0.25, 0.75)) == "belief over regimes 25%, 75%"


def test_votes_claims_and_the_principal_line_are_told() -> None:
    details = decision_details(decision())
    assert details[0] == "vote of garch: +20.0% of equity, share 75%, its plan claims +1.00e-03 of log growth"
    assert details[1] == "vote of rule: +10.0% of equity, share 25%"
    assert details[2].startswith("principal line of the plan: +0.50 (value +1.00e-03) → +0.25")
    assert "+20.0% a year" in details[3]
    assert decision_details(decision(votes=(), line=(), expected_return=None)) == ()


def test_a_search_tells_charge_weights_visits_and_line() -> None:
    assert search_words(SEARCH).startswith("ridge was in charge of the fusion: evidence 3 of the 20")
    assert "64 simulations chose +price, guided by network abcdef012345" in search_words(SEARCH)
    details = search_details(SEARCH)
    assert details[0] == "weights: price 0.500 → 0.600, news 0.250 → 0.250"
    assert details[1] == "+price: 40 visits, prior 0.100, value +2.00e-04"
    assert details[3] == "principal line: +price (value +2.00e-04) → hold (value +1.00e-04)"
    assert details[4].startswith("regime of the book: bear 15%")


def test_explain_walks_from_a_refusal_to_votes_search_and_regime(tmp_path: Path) -> None:
    state = MarketState(
        happened_at=0, known_at=HOUR, instrument="BTC/USDT", price=100.0, volatility=0.5, regime=BELIEF, regime_age=8.0, regime_change=0.02
    )
    fused = FusedSignal(
        happened_at=0, known_at=HOUR, instrument="BTC/USDT", sentiment=0.0, direction=0.3, volatility=0.5, confidence=0.4, urgency=0.1,
        weights=(), market_state=event_id(1, 0), expected_move=0.05, horizon=24 * HOUR,
    )  # fmt: skip
    refusal = Refusal(happened_at=HOUR, known_at=HOUR, instrument="BTC/USDT", rule="lot", message="too small", decision=event_id(1, 3))
    path = tmp_path / "journal.sqlite"
    with Journal(path, durable=False, header={}) as journal:
        journal.append(HOUR, [state, fused, SEARCH, decision(), refusal])
    with JournalReader(path) as journal:
        found = explain(journal, format_event_id(event_id(1, 4)))
    told = "\n".join(found.lines())
    for words in ("vote of garch", "principal line of the plan", "ridge was in charge", "+price: 40 visits", "regime: bear 15%", "over 1d"):
        assert words in told
    chain = json.loads(json.dumps(plain(found.as_dict())))["chain"]
    assert [link["kind"] for link in chain] == ["Refusal", "Decision", "FusedSignal", "FusionSearch", "MarketState"]
    assert any("8 bars" in words for words in chain[-1]["details"])


def test_the_record_notes_who_was_in_charge_since_when_and_for_how_long() -> None:
    record = DecisionRecord(1)
    names = ["ridge"] * 30 + ["search"] * 18
    for t, name in enumerate(names):
        record.take((t + 1) * HOUR, [decision(votes=(("a", 0.1, 0.25, math.nan), ("b", 0.1, 0.75, 0.5)))], searched(name, (t / 48, 0.5)))
    found = deciders(record, [(DAY, BELIEF), (2 * DAY, (1.0, 0.0, 0.0, 0.0, 0.0, 0.0))])
    assert [(one.name, one.bars, one.share) for one in found.charge] == [("ridge", 30, 0.625), ("search", 18, 0.375)]
    assert [(one.time, one.name) for one in found.changes] == [(HOUR, "ridge"), (31 * HOUR, "search")]
    assert found.type_weights is not None
    assert found.type_weights.names == ("price", "news")
    assert found.type_weights.values[1].tolist() == [23 / 48, 0.5]  # noted once a day, at its first bar
    assert [(one.name, one.mean_share, one.last_share) for one in found.members] == [("a", 0.25, 0.25), ("b", 0.75, 0.75)]
    assert math.isnan(found.members[0].mean_claim)
    assert found.members[1].mean_claim == 0.5
    assert {one.name: one.share for one in found.regimes}["bear"] == pytest.approx((0.15 + 1.0) / 2)


def test_a_claim_that_is_missing_once_does_not_hide_the_others() -> None:
    record = DecisionRecord(1)
    for t, claim in enumerate((math.nan, 0.5, 0.7)):
        record.take((t + 1) * HOUR, [decision(votes=(("a", 0.1, 0.25, claim), ("b", 0.1, 0.75, math.nan)))], None)
    found = deciders(record, []).members
    assert found[0].mean_claim == pytest.approx(0.6)
    assert math.isnan(found[1].mean_claim)


def test_without_search_council_and_regimes_nothing_is_noted() -> None:
    record = DecisionRecord(1)
    record.take(HOUR, [decision(votes=())], None)
    found = deciders(record, [])
    assert (found.charge, found.members, found.regimes, found.stages) == ((), (), (), ())
    assert (found.in_charge, found.type_weights, found.shares, found.regime_beliefs) == (None, None, None, None)
