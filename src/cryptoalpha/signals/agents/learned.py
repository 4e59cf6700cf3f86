"""Trained networks at work on the signals of a text source: confidence scaled by the value, action proposed by the policy.

    confidence' = confidence × clip(value / usual value, 0, 1)        usual: the 90th percentile of the values seen in training, if above 0
    impact'     = slope × direction of the policy × clip(value / usual value, 0, 1)

The slope turns the policy's mean position into an expected move in units of volatility; it was fitted on matured outcomes that taught
nothing else. Every bar is answered by the newest fold trained before it; a bar before the first fold, a signal of another source, and any
signal where no model is named pass through unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from cryptoalpha.core.errors import ModelError
from cryptoalpha.core.time import interval_name
from cryptoalpha.core.values import Signal
from cryptoalpha.nets.text_agent import text_networks
from cryptoalpha.signals.agents.learner import POSITIONS, answers, arrays_of
from cryptoalpha.signals.agents.text_states import READINGS, text_states
from cryptoalpha.signals.config import NewsConfig, SignalsConfig
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.tape import ACTIONS
from cryptoalpha.signals.text.encoder import EncoderId, TextEncoder
from cryptoalpha.signals.text.tiers import open_encoder
from cryptoalpha.store.model_folder import FoldFile, ModelFolder, plain, refuse_other, write_fold
from cryptoalpha.store.panel import build_panel
from cryptoalpha.store.tables import Dataset, Floats

KIND = "text"


@dataclass(frozen=True)
class TextAgentDesign:
    """What the folds of one model share."""

    source: str
    encoder: EncoderId
    news: NewsConfig
    interval: int
    """Bar length, ns."""
    horizon_bars: int
    policy_widths: tuple[int, ...]
    value_widths: tuple[int, ...]

    @property
    def inputs(self) -> int:
        """Numbers of a state."""
        return self.encoder.width + READINGS

    def described(self) -> dict[str, Any]:
        """For `model.json`: JSON values."""
        return dict(
            plain(
                {
                    "source": self.source,
                    "encoder": self.encoder.as_dict(),
                    "interval": interval_name(self.interval),
                    "interval_ns": self.interval,
                    "horizon_bars": self.horizon_bars,
                    "policy_widths": self.policy_widths,
                    "value_widths": self.value_widths,
                    **self.demanded(),
                }
            )
        )

    def demanded(self) -> dict[str, Any]:
        """Settings that must match where the model is used."""
        return {f"signals.news.{name}": value for name, value in self.news.model_dump().items()}

    @classmethod
    def of(cls, folder: ModelFolder, news: NewsConfig, encoder: TextEncoder) -> TextAgentDesign:
        """The design a folder describes, if it fits these settings.

        Raises:
            ModelError: if it does not, naming each difference; or if the description is malformed.
        """
        held, where = folder.description, str(folder.path)
        try:
            design = cls(
                source=str(held["source"]),
                encoder=EncoderId.read(held["encoder"], where),
                news=news,
                interval=int(held["interval_ns"]),
                horizon_bars=int(held["horizon_bars"]),
                policy_widths=tuple(int(width) for width in held["policy_widths"]),
                value_widths=tuple(int(width) for width in held["value_widths"]),
            )
        except (KeyError, TypeError, ValueError):
            raise ModelError(f"{where} is damaged: its description is malformed", hint="train it anew") from None
        refuse_other(where, held, {**design.demanded(), "encoder": EncoderId.of(encoder).as_dict()}, kind="agents")
        return design


@dataclass(frozen=True, eq=False)
class TextAgentModel:
    """One fold. `usual_value`: by which a value is scaled, 0 where training saw none above 0; `slope`: expected move per position."""

    design: TextAgentDesign
    policy: torch.nn.Module
    value: torch.nn.Module
    usual_value: float
    slope: float
    usable_from: int

    def weigh(self, inputs: npt.NDArray[np.float32]) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
        """Scale of the confidence (0–1), expected move, and action. `[n, D]` → `[n]` each."""
        value, shares = answers(self.policy, self.value, inputs)
        scale = np.clip(value / self.usual_value, 0.0, 1.0) if self.usual_value > 0.0 else np.zeros(len(value))
        return scale, self.slope * (shares @ POSITIONS) * scale, shares.argmax(axis=1)

    def save(self, folder: Path, number: int) -> FoldFile:
        """Write the fold."""
        state = {"usable_from": self.usable_from, "usual_value": self.usual_value, "slope": self.slope}
        return write_fold(folder, number, arrays_of(self.policy, self.value), state, kind=KIND)

    @classmethod
    def load(cls, folder: ModelFolder, number: int, design: TextAgentDesign) -> TextAgentModel:
        """One fold of an open folder.

        Raises:
            ModelError: if it is damaged or does not fit the design.
        """
        kept = folder.read(number)
        policy, value, _ = text_networks(design.inputs, design.policy_widths, design.value_widths, seed=0)
        try:
            for prefix, module in (("policy/", policy), ("value/", value)):
                weights = {name.removeprefix(prefix): torch.from_numpy(a) for name, a in kept.arrays.items() if name.startswith(prefix)}
                module.load_state_dict(weights)
            return cls(design, policy, value, float(kept.state["usual_value"]), float(kept.state["slope"]), int(kept.state["usable_from"]))
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"fold {number} of {folder.path} does not fit: {error}", hint="train it anew") from None


class LearnedTexts:
    """Weighs the signals of a bar by a folder of trained models. Satisfies `agent.Learned`.

    Args:
        folder: of the model.
        config: whose text encoder and news settings it must have been trained with.

    Raises:
        ConfigError: if there is no such model.
        ModelError: if it was trained with others, naming each difference.
    """

    def __init__(self, folder: Path | str, config: SignalsConfig, *, encoder: TextEncoder | None = None) -> None:
        self._folder = ModelFolder.open(Path(folder).expanduser(), KIND)
        self._encoder = encoder or open_encoder(config.text)
        self._design = TextAgentDesign.of(self._folder, config.news, self._encoder)
        self._models: dict[int, TextAgentModel] = {}

    def apply(self, signals: Sequence[Signal], dataset: Dataset) -> list[Signal]:
        """The signals of one bar, those of the model's source weighed."""
        mine = [i for i, signal in enumerate(signals) if signal.source == self._design.source]
        if not mine:
            return list(signals)
        self._folder = self._folder.refreshed()
        number = int(self._folder.numbers_at(np.array([signals[mine[0]].known_at]))[0])
        if number < 0:
            return list(signals)
        opened, interval = signals[mine[0]].happened_at, self._design.interval
        names = tuple(dict.fromkeys(signals[i].instrument for i in mine))
        panel = build_panel(dataset, since=opened, until=opened + interval, instruments=tuple(sorted(dataset.bars)))
        frame = Frame(panel, dataset)
        value, confidence = np.full(frame.shape, np.nan), np.full(frame.shape, np.nan)
        place = {name: panel.instruments.index(name) for name in names}
        for i in mine:
            value[0, place[signals[i].instrument]] = signals[i].value
            confidence[0, place[signals[i].instrument]] = signals[i].confidence
        states = text_states(frame, value, confidence, self._encoder, self._design.news)
        scale, impact, action = self._model(number).weigh(states.inputs)
        found = {int(asset): k for k, asset in enumerate(states.asset.tolist())}
        weighed = list(signals)
        for i in mine:
            k = found[place[signals[i].instrument]]
            weighed[i] = msgspec.structs.replace(
                signals[i],
                confidence=signals[i].confidence * float(scale[k]),
                predicted_impact=float(impact[k]),
                proposed_action=ACTIONS[int(action[k])],
            )
        return weighed

    def _model(self, number: int) -> TextAgentModel:
        if number not in self._models:
            self._models[number] = TextAgentModel.load(self._folder, number, self._design)
        return self._models[number]
