"""Builds what decides in a run from settings: the fusion, the agents, and the council in which several of them sit.

What needs a trained model says which folder is missing and how to make it; nothing that is not asked for is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from cryptoalpha.app.settings import Settings
from cryptoalpha.core.errors import ModelError
from cryptoalpha.core.time import interval_name
from cryptoalpha.decisions.config import FusionConfig, MemberName
from cryptoalpha.decisions.council.council import Council
from cryptoalpha.decisions.fusion.baselines import baseline_fusion
from cryptoalpha.decisions.fusion.contract import Fusion
from cryptoalpha.decisions.rule_agent import Agent, RuleAgent
from cryptoalpha.store.model_folder import ModelFolder
from cryptoalpha.store.tables import Dataset

Say = Callable[[str], None]
RULE: tuple[MemberName, ...] = ("rule",)


def build_fusion(
    config: FusionConfig,
    *,
    seed: int = 0,
    live: bool = False,
    place: Path | None = None,
    follow_until: int = 0,
    say: Say | None = None,
    interval: int | None = None,
) -> Fusion:
    """The fusion of that name.

    Args:
        seed: of the search.
        live: whether bars come at the pace of the world, with time for more simulations.
        place: folder in which a searched fusion notes when it adopted which network; None keeps that in memory.
        follow_until: newest moment that the journal of a run that goes on holds, UTC ns: up to there, what was adopted is adopted again.
        say: told what a person should know of learning beside the loop.
        interval: length of a bar, ns: a trained fusion belongs to one. None: whoever asks has no bars yet.

    Raises:
        ConfigError: if a trained folder is named and is not there.
        ModelError: if it is damaged, or belongs to other settings or bars.
    """
    if config.method != "search":
        return baseline_fusion(config)
    if config.learning.model and interval is not None:
        _refuse_other_bars(Path(config.learning.model).expanduser(), interval)
    from cryptoalpha.decisions.fusion.guided import open_fusion

    return open_fusion(config, seed=seed, live=live, place=place, follow_until=follow_until, say=say or _say_nothing)


def _refuse_other_bars(path: Path, interval: int) -> None:
    """Its horizon and its costs are counted in bars: on others it would weigh what it has not learned."""
    from cryptoalpha.decisions.fusion.guided import KIND

    trained = ModelFolder.open(path, KIND).description.get("interval", interval)
    if trained != interval:
        raise ModelError(
            f"{path} was trained on bars of {interval_name(trained)}, these have {interval_name(interval)}",
            hint="ask for the bars it was trained on with --interval, or train it on these",
        )


def build_agent(settings: Settings, instruments: Sequence[str], *, interval: int, members: Sequence[MemberName] | None = None) -> Agent:
    """The agent of a run: the one member there is, or a council of several.

    Args:
        interval: length of a bar, ns: a trained agent belongs to one.
        members: who sits; None: those of `agent.members`.

    Raises:
        ConfigError: if a member is named twice, or its trained folder is named and is not there.
        ModelError: if that folder is damaged or belongs to other settings.
    """
    names = settings.agent.members if members is None else tuple(members)
    agents = [_member(name, settings, len(instruments), interval) for name in names]
    if len(agents) == 1:
        return agents[0]
    return Council(agents, settings.agent.council, cost=cost_per_unit(settings), band=settings.risk.no_trade_band)


def cost_per_unit(settings: Settings) -> float:
    """What trading one unit of notional costs before impact: taker fee and half the spread, fraction."""
    costs = settings.execution.costs
    return costs.taker_fee + costs.half_spread


def bar_length(dataset: Dataset, instruments: Sequence[str]) -> int:
    """Length of the bars of a run, ns; 0 where there are none."""
    return max((dataset.bars[name].interval for name in instruments if name in dataset.bars), default=0)


def model_files(settings: Settings) -> dict[str, Path]:
    """The file that describes each trained model that is asked, by the name it has in a run's identity."""
    signals = settings.signals
    folders: dict[str, str] = {"forecast": signals.forecast.model, "genome": signals.genome.model}
    files: dict[str, Path] = {name: Path(folder) / "model.json" for name, folder in folders.items() if name in signals.sources and folder}
    if signals.text.sentiment_model:
        files["sentiment"] = Path(signals.text.sentiment_model)
    if signals.regime.model:
        files["regime"] = Path(signals.regime.model) / "model.json"
    if settings.fusion.method == "search" and settings.fusion.learning.model:
        files["fusion"] = Path(settings.fusion.learning.model) / "model.json"
    if settings.agent.members != RULE and settings.agent.planner.model:
        files["agent"] = Path(settings.agent.planner.model) / "model.json"
    return files


def unused_models(settings: Settings) -> list[str]:
    """Each trained folder that the settings name and nothing asks, in words. The model of regimes is asked wherever it is named."""
    signals = settings.signals
    named = {
        "forecast": ("signals.forecast.model", signals.forecast.model, "signals.sources lacks forecast"),
        "genome": ("signals.genome.model", signals.genome.model, "signals.sources lacks genome"),
        "fusion": ("fusion.learning.model", settings.fusion.learning.model, f"fusion.method is {settings.fusion.method}"),
        "agent": ("agent.planner.model", settings.agent.planner.model, "agent.members has nobody who plans"),
    }
    used = model_files(settings)
    return [f"{setting}={folder} is not used: {why}" for name, (setting, folder, why) in named.items() if folder and name not in used]


def has_learned(settings: Settings) -> bool:
    """Whether anything trained, searched or planned decides: then `backtest` tells what each stage added."""
    return settings.fusion.method == "search" or settings.agent.members != RULE


def _member(name: MemberName, settings: Settings, book_size: int, interval: int) -> Agent:
    agent = settings.agent
    if name == "rule":
        return RuleAgent(agent, book_size=book_size)
    from cryptoalpha.decisions.alphazero.trained import open_trader

    return open_trader(
        name, agent, agent.planner, settings.execution.costs, book_size=book_size, seed=settings.engine.seed, interval=interval
    )


def _say_nothing(text: str) -> None:
    """For whoever has nobody to tell."""
