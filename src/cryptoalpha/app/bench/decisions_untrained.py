"""Folders of models that nobody has trained, for measuring what they cost: regime model, guiding fusion network, agents' value functions.

Their weights are drawn, not 0, so that everything behind them has something to do. How long a bar takes hardly depends on the weights; of
what a trained network would leave out (units that are 0), an untrained one leaves out about half.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from cryptoalpha.app.settings import Settings
from cryptoalpha.core.seeds import stream
from cryptoalpha.decisions.alphazero.config import ScenarioName
from cryptoalpha.decisions.alphazero.trader import Fitted, Trader
from cryptoalpha.decisions.alphazero.trained import described as agent_described
from cryptoalpha.decisions.alphazero.trained import finish as finish_agent
from cryptoalpha.decisions.alphazero.trained import write_agent_fold
from cryptoalpha.decisions.alphazero.value import FEATURES, HIDDEN, ValueFunction
from cryptoalpha.decisions.config import MEMBERS
from cryptoalpha.decisions.fusion.guided import KIND as FUSION
from cryptoalpha.decisions.fusion.guided import described as fusion_described
from cryptoalpha.decisions.fusion.network import build_network, guide_of, weights_of
from cryptoalpha.decisions.fusion.search.actions import ACTIONS
from cryptoalpha.nets.policy_value import PolicyValueNet
from cryptoalpha.signals.frame import Frame
from cryptoalpha.signals.regime.features import regime_features
from cryptoalpha.signals.regime.hmm import GaussianHmm
from cryptoalpha.signals.regime.model import RegimeDesign, RegimeModel
from cryptoalpha.signals.regime.model import finish as finish_regime
from cryptoalpha.signals.scaler import fit_scaler
from cryptoalpha.store.model_folder import write_fold, write_folder

REWARD = 1e-4
"""Size of the values that an untrained network names: a basis point, as rewards have."""


def write_regime(folder: Path, settings: Settings, frame: Frame, usable_from: int) -> None:
    """A regime model of made-up chains, its scaler fitted on the frame."""
    folder.mkdir(parents=True)
    features = regime_features(frame.beginning(0))
    width = features.shape[2] // 2
    scaler = fit_scaler(features.reshape(-1, features.shape[2]), fitted_until=int(frame.panel.known_at[-1]))

    def chain(states: int) -> GaussianHmm:
        transition = np.full((states, states), 0.01 / (states - 1))
        np.fill_diagonal(transition, 0.99)
        mean = np.linspace(-1.0, 1.0, states)[:, None] * np.linspace(0.8, 1.2, width)
        covariance = np.repeat((0.6 * np.eye(width) + 0.4)[None], states, axis=0)
        return GaussianHmm(np.full(states, 1.0 / states), transition, mean, covariance, 0.02)

    design = RegimeDesign(settings.signals.regime, frame.panel.interval)
    finish_regime(folder, design, [RegimeModel(design, scaler, chain(3), chain(2), usable_from).save(folder, 0)], {})


def fusion_network() -> PolicyValueNet:
    """A network of the widths that are trained, with an opinion about every action and state."""
    net, draw = build_network(ACTIONS, seed=1), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=draw))
    net.scale_values(0.0, REWARD)
    return net


def write_fusion(folder: Path, settings: Settings, usable_from: int) -> None:
    """A network that guides the search, of the widths that are trained."""
    folder.mkdir(parents=True)
    net = fusion_network()
    guide = guide_of(net)
    arrays = {"graph": np.frombuffer(guide.graph, np.uint8), **{f"net.{name}": array for name, array in weights_of(net).items()}}
    state = {"usable_from": usable_from, "version": guide.version, "search": {}, "guides": True}
    fold = write_fold(folder, 0, arrays, state, kind=FUSION)
    write_folder(folder, kind=FUSION, description=fusion_described(settings.fusion), lineage={}, folds=[fold])


def write_agents(folder: Path, settings: Settings, *, book_size: int, interval: int, usable_from: int) -> None:
    """Dynamics as they are before any evidence, and a value function for every law of scenarios."""
    folder.mkdir(parents=True)
    agent, config, draw = settings.agent, settings.agent.planner, stream(1, "untrained value functions")
    memory = Trader("quantiles", agent, config, settings.execution.costs, book_size=book_size, seed=0).memory
    widths = (FEATURES, *HIDDEN, config.positions)
    fitted: dict[ScenarioName, Fitted] = {}
    for name in MEMBERS:
        if name == "rule":
            continue
        layers = tuple((draw.normal(0.0, a**-0.5, (a, b)).astype(np.float32), np.zeros(b, np.float32)) for a, b in pairwise(widths))
        leaf = ValueFunction(layers, np.zeros(config.positions), np.full(config.positions, REWARD), int(np.prod(config.branching)))
        garch = (config.garch_alpha, config.garch_beta)
        fitted[name] = Fitted(memory.fitted(), garch, config.student_degrees, memory.pool(), leaf)
    fold = write_agent_fold(folder, 0, usable_from, fitted)
    finish_agent(folder, agent_described(agent, config, book_size=book_size, interval=interval), [fold], {})
