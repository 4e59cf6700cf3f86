"""The recipes that train models, with settings so small that an audit can train every one of them several times.

Same code, same data path, at most some hundred gradient steps: what is small are the networks, the stretch that is learned from and how
often it is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cryptoalpha.app.settings import Settings
from cryptoalpha.app.train_all import STEPS
from cryptoalpha.app.training_audit import Recipe
from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import DAY
from cryptoalpha.lifecycle.config import TrainConfig
from cryptoalpha.lifecycle.recipes.forecaster import Period, Plan
from cryptoalpha.nets.config import EvoformerConfig, GenomeConfig
from cryptoalpha.signals.config import SignalsConfig

LEARN_DAYS = 24
"""Days a small model learns from: 576 hourly bars, 72 steps of eight at most per pass."""
REGIME_DAYS = 120


def chosen_recipes(settings: Settings, names: Sequence[str] = STEPS) -> list[Recipe]:
    """The recipes of these kinds, in the order in which models build on each other.

    Raises:
        ConfigError: if there is no recipe of a name.
    """
    unknown = sorted(set(names) - set(STEPS))
    if unknown or not names:
        raise ConfigError(f"no recipe trains {', '.join(unknown) or 'nothing'}", hint=f"choose from {', '.join(STEPS)}")
    made = {"regime": _regime, "forecaster": _forecaster, "genome": _genome, "fusion": _fusion, "agent": _agent}
    return [made[name](settings) for name in STEPS if name in names]


def _train(**changes: object) -> TrainConfig:
    """One fold whose test stretch is all that follows."""
    base = TrainConfig(
        test_days=100_000, train_days=LEARN_DAYS, epochs=1, batch=8, checks_per_epoch=2, evolve_generations=2, learning_rate=2e-3,
        processes=1,
    )  # fmt: skip
    return base.model_copy(update=changes)


def _period(moment: int, days: int = LEARN_DAYS) -> Period:
    """One fold that learns from so many days and may be used from `moment` on."""
    return Period(since=moment - (days + 2) * DAY, test_since=moment, folds=None)


def _plan(settings: Settings) -> Plan:
    tiny = EvoformerConfig(
        sequence_width=8, pair_width=4, head_width=4, heads=2, pair_heads=1, pair_head_width=4, outer_width=2, blocks=1
    )  # fmt: skip
    genome = GenomeConfig(
        window_bars=16, width=8, heads=2, layers=1, pair_width=4, pair_heads=1, pair_head_width=4, outer_width=2, distance_bins=8
    )
    learn = settings.learn.model_copy(update={"evolution": settings.learn.evolution.model_copy(update={"population": 8})})
    nets = settings.nets.model_copy(update={"preset": "custom", "evoformer": tiny, "genome": genome})
    return Plan(nets, _signals(settings), learn, _train(), settings.execution.costs, settings.engine.seed)


def _signals(settings: Settings) -> SignalsConfig:
    """Short horizons, and no source that is itself a trained model: its folds are audited where they are made."""
    signals = settings.signals
    return signals.model_copy(
        update={
            "sources": tuple(name for name in signals.sources if name not in ("forecast", "genome")),
            "regime": signals.regime.model_copy(update={"model": ""}),
            "forecast": signals.forecast.model_copy(update={"horizon_bars": (1, 6)}),
            "genome": signals.genome.model_copy(update={"frames": ("1h", "4h"), "horizon_bars": 6}),
        }
    )


def _regime(settings: Settings) -> Recipe:
    from cryptoalpha.lifecycle.recipes.regime import train_regime

    plan = replace(_plan(settings), train=_train(train_days=REGIME_DAYS))  # its chains are judged over a week and learn from days
    return Recipe("regime", lambda data, moment, out: train_regime(plan, data, _period(moment, REGIME_DAYS), out))


def _forecaster(settings: Settings) -> Recipe:
    from cryptoalpha.lifecycle.recipes.forecaster import train_forecaster

    return Recipe("forecaster", lambda data, moment, out: train_forecaster(_plan(settings), data, _period(moment), out))


def _genome(settings: Settings) -> Recipe:
    from cryptoalpha.lifecycle.recipes.genome import train_genome

    return Recipe("genome", lambda data, moment, out: train_genome(_plan(settings), data, _period(moment), out))


def _fusion(settings: Settings) -> Recipe:
    from cryptoalpha.lifecycle.recipes.fusion import FusionPlan, train_fusion

    fusion = settings.fusion.model_copy(
        update={
            "method": "search",
            "warmup_days": 10.0,
            "half_life_bars": 24.0 * LEARN_DAYS,
            "search": settings.fusion.search.model_copy(update={"simulations": 8, "half_life_bars": 24.0 * LEARN_DAYS}),
            "learning": settings.fusion.learning.model_copy(update={"model": "", "batch": 32, "passes": 1}),
        }
    )
    plan = FusionPlan(_signals(settings), fusion, _train(evolve_generations=0), settings.engine.seed)
    return Recipe("fusion", lambda data, moment, out: train_fusion(plan, data, _period(moment), out))


def _agent(settings: Settings) -> Recipe:
    from cryptoalpha.decisions.alphazero.learning import Lessons
    from cryptoalpha.lifecycle.recipes.agent import AgentPlan, train_agent

    usual = Lessons()
    lessons = replace(usual, rounds=1, plans=4, roots=32, episodes=32, fit=replace(usual.fit, steps=5, batch=64, reanalysed=8))
    fusion = settings.fusion.model_copy(update={"method": "ridge", "warmup_days": 10.0, "half_life_bars": 24.0 * LEARN_DAYS})
    plan = AgentPlan(_signals(settings), fusion, settings.agent, _train(), settings.execution, settings.engine.seed)
    return Recipe("agent", lambda data, moment, out: train_agent(plan, data, _period(moment), out, lessons=lessons))
