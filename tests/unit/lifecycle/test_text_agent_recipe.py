"""The recipe of the text agent: trained on folds, gone on with after an interruption, used by the agent, refused where it does not fit."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from cryptoalpha.core.errors import DataMissingError, ModelError
from cryptoalpha.core.time import HOUR
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.execution.config import CostConfig
from cryptoalpha.learn.config import ActorCriticConfig, LearnConfig
from cryptoalpha.lifecycle.config import TrainConfig
from cryptoalpha.lifecycle.recipes import text_agent_fold
from cryptoalpha.lifecycle.recipes.forecaster import Period, Plan
from cryptoalpha.lifecycle.recipes.text_agent import train_text_agent
from cryptoalpha.lifecycle.recipes.text_agent_judging import judge_text_agent
from cryptoalpha.nets.config import NetsConfig
from cryptoalpha.signals.agents.learned import LearnedTexts
from cryptoalpha.signals.book import SignalBook
from cryptoalpha.signals.config import NewsConfig, SignalsConfig

SIGNALS = SignalsConfig(sources=("news_tone", "momentum_short"), keep_features=False, news=NewsConfig(history_days=5.0))
SMALL = ActorCriticConfig(policy_widths=(8, 8, 8, 5), value_widths=(8, 8, 8, 1), learning_rate=2e-2)
PLAN = Plan(
    NetsConfig(),
    SIGNALS,
    LearnConfig(actor_critic=SMALL),
    TrainConfig(train_days=18, test_days=6, epochs=2, processes=1, embargo_days=0.5, batch=2),
    CostConfig(),
    seed=1,
)


@pytest.fixture(scope="module")
def market():
    return simulate(SimulatedConfig(assets=2, bars=24 * 48, start="2021-01-01"), seed=5).dataset


@pytest.fixture(scope="module")
def trained(market, tmp_path_factory):
    return train_text_agent(PLAN, market, Period(folds=2), tmp_path_factory.mktemp("models") / "text_agent")


def test_the_folder_tells_what_was_found(trained):
    lineage = json.loads((trained.path / "model.json").read_text())["lineage"]
    assert len(lineage["training"]) == 2
    assert lineage["judgement"]["opinions"] > 300
    assert len(lineage["training"][0]["validation_rewards"]) == 3
    assert "verdict" in lineage
    assert trained.lines()[0].startswith("text agent, ")
    assert (trained.path / "report.html").is_file()


def test_who_trains_it_again_gets_what_lies_there(trained, market):
    assert train_text_agent(PLAN, market, Period(folds=2), trained.path).already


def test_an_interrupted_training_ends_with_the_same_weights(trained, market, tmp_path, monkeypatch):
    calls = []

    def stops(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return done(*args)

    done = text_agent_fold.one_pass
    monkeypatch.setattr(text_agent_fold, "one_pass", stops)
    out = tmp_path / "text_agent"
    with pytest.raises(KeyboardInterrupt):
        train_text_agent(PLAN, market, Period(folds=2), out)
    monkeypatch.setattr(text_agent_fold, "one_pass", done)
    train_text_agent(PLAN, market, Period(folds=2), out)
    for fold in ("fold_00.safetensors", "fold_01.safetensors"):
        assert (out / fold).read_bytes() == (trained.path / fold).read_bytes()


def test_later_prices_do_not_reach_an_earlier_fold(trained, market, tmp_path):
    """Everything from the first fold's test on is poisoned: its weights stay, to the last bit."""
    moment = json.loads((trained.path / "model.json").read_text())["folds"][0]["usable_from"]
    bars = {}
    for name, table in market.bars.items():  # every return from there on has the other sign
        late, level = table.open_time + HOUR >= moment, table.close[table.open_time + HOUR < moment][-1] ** 2
        mirrored = {"open": table.open, "high": table.low, "low": table.high, "close": table.close}
        bars[name] = replace(table, **{part: np.where(late, level / of, getattr(table, part)) for part, of in mirrored.items()})
    other = train_text_agent(PLAN, replace(market, bars=bars), Period(folds=2), tmp_path / "text_agent")
    first, second = "fold_00.safetensors", "fold_01.safetensors"
    assert (other.path / first).read_bytes() == (trained.path / first).read_bytes()
    assert (other.path / second).read_bytes() != (trained.path / second).read_bytes()


def test_it_weighs_the_source_it_was_trained_on_and_no_other(trained, market):
    learned = LearnedTexts(trained.path, SIGNALS)
    opens = next(iter(market.bars.values())).open_time
    changed = 0
    for place, knows in ((-5, True), (24 * 15, False)):
        opened = int(opens[place])
        signals = SignalBook(SIGNALS).prepare(market, since=opened, until=opened + HOUR).signals_at(0)
        weighed = learned.apply(signals, market)
        assert len(weighed) == len(signals) >= 2
        for before, after in zip(signals, weighed, strict=True):
            if not knows or before.source != "news_tone":
                assert after == before
            else:
                assert 0.0 <= after.confidence <= before.confidence
                assert after.value == before.value
                changed += after != before
    assert changed > 0


def test_a_bar_answered_live_is_the_bar_that_was_judged(trained, market):
    """One bar at a time, the networks give what they gave the judge for all bars at once."""
    learned = LearnedTexts(trained.path, SIGNALS)
    opens = next(iter(market.bars.values())).open_time
    since = int(opens[-30])
    tape = SignalBook(SIGNALS).prepare(market, since=since, until=since + 3 * HOUR)
    for t in range(3):
        live = market.known_until(int(tape.panel.known_at[t]))
        assert learned.apply(tape.signals_at(t), live) == learned.apply(tape.signals_at(t), market)


def test_with_other_news_settings_it_is_refused(trained):
    other = SIGNALS.model_copy(update={"news": NewsConfig(history_days=5.0, half_life_hours=3.0)})
    with pytest.raises(ModelError, match="half_life_hours"):
        LearnedTexts(trained.path, other)


def test_without_texts_there_is_nothing_to_learn(market, tmp_path):
    with pytest.raises(DataMissingError, match="no texts"):
        train_text_agent(PLAN, replace(market, posts={}), Period(), tmp_path / "m")


def test_chance_is_not_promoted_and_a_true_gain_is():
    rng = np.random.default_rng(0)
    bars = 3_000
    base = {name: np.zeros(bars) for name in ("scale", "scaled own reward", "learned error", "own error", "no error", "acted")}
    noise = rng.normal(size=bars)
    chance = judge_text_agent({**base, "n": np.ones(bars), "learned reward": noise, "own reward": rng.normal(size=bars)}, horizon_bars=1)
    assert not chance.verdict()["promoted"]
    better = judge_text_agent({**base, "n": np.ones(bars), "learned reward": noise + 0.3, "own reward": noise}, horizon_bars=1)
    assert better.verdict()["promoted"]
    worse = judge_text_agent({**base, "n": np.ones(bars), "learned reward": noise - 0.3, "own reward": noise}, horizon_bars=1)
    assert "worse than no learning" in worse.verdict()["words"]
