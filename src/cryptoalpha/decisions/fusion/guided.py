"""A searched fusion with its networks: those of a trained folder, each from the bar on at which it may answer, and those learned beside it.

    FUSION/model.json          kind "fusion": number of actions, families of evidence, horizon, lineage
    FUSION/fold_00.safetensors `graph` (the network as ONNX bytes) and every weight; state: version and the settings of the search

Whatever takes over does so between two bars: what the learner beside the loop proposed after the bar before, then the newest fold that may
answer at the moment of the next bar. So a bar is decided by what was trained on the past alone, and a replay by the same networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryptoalpha.core.errors import ModelError
from cryptoalpha.core.values import FusedSignal, FusionSearch, MarketState, Signal
from cryptoalpha.decisions.config import FusionConfig
from cryptoalpha.decisions.fusion.experience import STATE_WIDTH, ExperienceQueue
from cryptoalpha.decisions.fusion.online.adoptions import Adoptions
from cryptoalpha.decisions.fusion.online.beside import OnlineLearning
from cryptoalpha.decisions.fusion.search.actions import ACTIONS
from cryptoalpha.decisions.fusion.search.config import SearchConfig
from cryptoalpha.decisions.fusion.search.searched import SearchedFusion
from cryptoalpha.store.array_file import Array
from cryptoalpha.store.model_folder import ModelFolder, refuse_other

if TYPE_CHECKING:  # numba is imported by who is guided
    from cryptoalpha.learn.search.row_network import RowNetwork

KIND = "fusion"

EVOLVED = ("delta", "prior_ic", "prior_share", "regime_share", "half_life_bars")
"""Settings of the search that a trained folder may bring along."""


def described(config: FusionConfig) -> dict[str, Any]:
    """What a trained network is bound to: another fusion cannot be guided by it."""
    return {
        "actions": ACTIONS,
        "state_width": STATE_WIDTH,
        "families": list(config.search.families),
        "horizon_bars": config.horizon_bars,
        "discount": config.search.discount,
    }


@dataclass(frozen=True, eq=False)
class Guidance:
    """One fold: its network, what it is called, the settings of the search it was trained with, its weights.

    A network that did not earn more than the search without one does not guide: `evaluator` None and `version` empty, which is the same
    search at a fraction of the cost.
    """

    evaluator: RowNetwork | None
    version: str
    search: SearchConfig
    weights: dict[str, Array]


class TrainedFolder:
    """A folder of `train fusion`, open.

    Raises:
        ConfigError: if there is no such folder.
        ModelError: if it is of another kind, damaged, or of another fusion.
    """

    def __init__(self, path: Path, config: FusionConfig) -> None:
        self.folder = ModelFolder.open(path, KIND)
        refuse_other(str(path), self.folder.description, described(config), kind=KIND)
        self._config = config

    def number_at(self, at: int) -> int:
        """The fold that answers at a moment (UTC ns), −1 before the first."""
        self.folder = self.folder.refreshed()
        return int(self.folder.numbers_at(np.array([at], np.int64))[0])

    def fold(self, number: int) -> Guidance:
        """One fold.

        Raises:
            ModelError: if its file is missing, damaged or exchanged.
        """
        from cryptoalpha.learn.search.row_network import RowNetwork

        arrays, state = self.folder.read(number)
        evaluator = RowNetwork(arrays["graph"].tobytes(), digest=state["version"])
        brought = state["search"]
        if odd := sorted(set(brought) - set(EVOLVED)):
            raise ModelError(f"fold {number} of {self.folder.path} brings settings that no training evolves: {odd}")
        search = SearchConfig.model_validate({**self._config.search.model_dump(), **brought})
        weights = {name.removeprefix("net."): array for name, array in arrays.items() if name.startswith("net.")}
        guides = bool(state["guides"])
        return Guidance(evaluator if guides else None, str(state["version"]) if guides else "", search, weights)


class GuidedFusion:
    """A `SearchedFusion` that is guided by the newest network there is; implements `contract.Fusion`.

    Args:
        fusion: searches; its experience queue feeds the learner.
        folder: trained networks; None: none.
        online: learning beside the loop; None: none.
    """

    name = "search"

    def __init__(self, fusion: SearchedFusion, *, folder: TrainedFolder | None, online: OnlineLearning | None) -> None:
        self.fusion, self.folder, self.online = fusion, folder, online
        self._fold = -1
        self._last: int | None = None
        self._bars = 0

    @property
    def search(self) -> FusionSearch | None:
        """What the newest bar searched."""
        return self.fusion.search

    def fuse(
        self,
        at: int,
        states: Sequence[MarketState],
        signals: Sequence[Signal],
        *,
        state_events: Sequence[int],
        signal_events: Sequence[int],
    ) -> list[FusedSignal]:
        self._between_bars(at)
        self._last = at
        self._bars += 1
        return self.fusion.fuse(at, states, signals, state_events=state_events, signal_events=signal_events)

    def close(self) -> None:
        """End the learner, if there is one."""
        if self.online is not None:
            self.online.close()

    def _between_bars(self, at: int) -> None:
        if self.online is not None and self._last is not None:
            self.online.after(self._last, self._bars, self.fusion)
        if self.folder is None:
            return
        number = self.folder.number_at(at)
        if number != self._fold:
            self._fold = number
            guidance = self.folder.fold(number)
            self.fusion.adopt(guidance.evaluator, guidance.version, guidance.search)
            if self.online is not None:
                self.online.replaced(guidance.weights)


def open_fusion(
    config: FusionConfig,
    *,
    seed: int,
    live: bool,
    place: Path | None = None,
    follow_until: int = 0,
    say: Callable[[str], None] = lambda words: None,
) -> SearchedFusion | GuidedFusion:
    """The searched fusion of a run, with its trained networks and its learner as configured.

    Args:
        place: folder in which take-overs are kept; None keeps them in memory.
        follow_until: newest bar (UTC ns) that a run which goes on has decided already.
        say: told what the learner does.

    Raises:
        ConfigError, ModelError: if the trained folder cannot be used.
    """
    folder = TrainedFolder(Path(config.learning.model).expanduser(), config) if config.learning.model else None
    if not config.online.enabled:
        searched = SearchedFusion(config, seed=seed, live=live)
        return searched if folder is None else GuidedFusion(searched, folder=folder, online=None)
    from cryptoalpha.decisions.fusion.online.student import Enrolment  # torch, for those alone who learn

    queue = ExperienceQueue(ACTIONS, capacity=4 * config.horizon_bars + 64)
    enrolment = Enrolment(
        ACTIONS, config.horizon_bars, config.search.discount, config.learning, config.online, seed,
    )  # fmt: skip
    online = OnlineLearning(enrolment, Adoptions(place), live=live, follow_until=follow_until, say=say)
    return GuidedFusion(SearchedFusion(config, seed=seed, live=live, experience=queue), folder=folder, online=online)
