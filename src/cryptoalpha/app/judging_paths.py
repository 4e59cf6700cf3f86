"""Combinatorial purged cross-validation of a contender: its forecaster's own recipe, as its lineage tells it, trained on every split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import parse_time
from cryptoalpha.learn.config import EvolutionConfig, FitConfig
from cryptoalpha.lifecycle.config import TrainConfig
from cryptoalpha.lifecycle.gates.combinatorial import Blocks, ForecasterRecipe, forecaster_paths
from cryptoalpha.lifecycle.gates.evidence import PathReturns
from cryptoalpha.lifecycle.gates.values import Contender
from cryptoalpha.signals.forecast.model import open_forecaster

if TYPE_CHECKING:
    from cryptoalpha.app.judging_candidates import Ground
    from cryptoalpha.app.settings import Settings


def path_returns(ground: Ground, contender: Contender) -> PathReturns:
    """Daily returns of every path, over all bars that the contender learned from or was judged on, less the holdout.

    Raises:
        ConfigError: if the contender has no forecaster, or its lineage does not say how it was made.
    """
    from cryptoalpha.app.judging_candidates import folders_of

    if "forecaster" not in folders_of(contender):
        raise ConfigError(
            f"only forecasters can be trained on combinatorial splits; line {contender.line!r} has none",
            hint="judge the loop as a whole, or leave 'paths' out of lifecycle.gates.required",
        )
    recipe, since = recipe_of(ground.settings_of(contender))
    config = ground.settings.lifecycle.gates
    out = ground.scratch / "paths" / contender.id[:12]
    blocks = Blocks(config.path_blocks, config.path_tested)
    return forecaster_paths(recipe, ground.open_data, since, ground.held_out.since, blocks, out)


def recipe_of(settings: Settings) -> tuple[ForecasterRecipe, int]:
    """How the forecaster that these settings ask was made, and from when on it learned (UTC ns).

    Raises:
        ConfigError: if its lineage does not say.
    """
    signals = settings.signals
    folder, design = open_forecaster(signals.forecast, signals.news)
    try:
        told: dict[str, Any] = folder.lineage["identity"]
        train, fit = dict(told["train"]), dict(told["fit"])
        config = TrainConfig(**{**train, "processes": settings.lifecycle.train.processes})
        # The recipe's own steps are those of its training, not of `learn.fit` (`recipes.forecaster`).
        fit |= {"learning_rate": config.learning_rate, "batch": config.batch, "epochs": config.epochs}
        recipe = ForecasterRecipe(
            design, config, FitConfig(**fit), EvolutionConfig(**told["evolution"]),
            float(told["costs"]["taker_fee"]) + float(told["costs"]["half_spread"]), int(told["seed"]), signals.news, signals.text,
            tuple(told["instruments"]),
        )  # fmt: skip
        since = parse_time(told["folds"][0]["train_since"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ConfigError(f"the lineage of {folder.path} does not say how it was trained: {error!r}", hint="train it anew") from None
    return recipe, since
