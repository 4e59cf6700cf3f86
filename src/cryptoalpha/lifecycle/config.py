"""How models are tuned, rolled out and watched. The defaults are the user's own numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cryptoalpha.core.config import Count, NonNegative, Positive, Section
from cryptoalpha.lifecycle.alerts.config import AlertConfig
from cryptoalpha.lifecycle.gates.config import GateConfig, RampConfig
from cryptoalpha.lifecycle.kubernetes.config import KubernetesConfig
from cryptoalpha.lifecycle.registry.config import RegistryConfig
from cryptoalpha.lifecycle.retrain.config import RetrainConfig
from cryptoalpha.lifecycle.rollout.config import CanaryConfig
from cryptoalpha.lifecycle.serving.config import ServingConfig
from cryptoalpha.lifecycle.tune.config import TuneConfig


class TrainConfig(Section):
    """[lifecycle.train] How a network is trained and judged: walking forward, purged, with an embargo."""

    test_days: Count = 196
    """Days judged by one fold's model before the next fold's takes over: 28 weeks."""

    train_days: Count = 504
    """Days a fold learns from: 72 weeks. Long enough for a bull and a bear market, short enough for a laptop."""

    expanding: bool = False
    """Whether a fold learns from all bars before its test, from the first of the history on, and `train_days` is the least it needs;
    else from the newest `train_days` alone."""

    validation_share: Annotated[float, Field(gt=0.0, le=0.5)] = 0.15
    """Share of the training days (above 0 up to 0.5), the newest, on which training is stopped and confidence is calibrated."""

    accept_share: Annotated[float, Field(ge=0.0, le=0.4)] = 0.1
    """Share of the training days (0 up to 0.4), between training and validation, on which an evolved generation must not do worse."""

    embargo_days: NonNegative = 1.0
    """Days left out between what teaches and what judges, beyond the labels' own horizon."""

    stride_bars: Count = 1
    """Every how many blocks one is trained on."""

    epochs: Count = 2
    """Passes over the training blocks of one fold at most."""

    batch: Count = 8
    """Blocks of one gradient step."""

    learning_rate: Positive = 5e-4
    """Peak step size. Larger than `learn.fit.learning_rate`, which is the user's for BERT-sized networks."""

    checks_per_epoch: Count = 3
    """Looks at the validation slice per epoch; two flat looks in a row count as converged."""

    evolve_generations: Annotated[int, Field(ge=0)] = 20
    """Generations of evolution on net Sharpe after costs that follow the gradients; 0 leaves them out."""

    processes: Count = 2
    """Folds trained side by side, one thread each."""


class LifecycleConfig(Section):
    """[lifecycle] How a model is tuned, promoted and watched."""

    train: TrainConfig = TrainConfig()
    """Training of the networks."""

    tune: TuneConfig = TuneConfig()
    """Search of settings."""

    canary: CanaryConfig = CanaryConfig()
    """Taking over."""

    serving: ServingConfig = ServingConfig()
    """Answering over HTTP."""

    alerts: AlertConfig = AlertConfig()
    """Watching."""

    gates: GateConfig = GateConfig()
    """What must be proved."""

    ramp: RampConfig = RampConfig()
    """How capital grows."""

    kubernetes: KubernetesConfig = KubernetesConfig()
    """A cluster."""

    retrain: RetrainConfig = RetrainConfig()
    """When models are trained anew."""

    registry: RegistryConfig = RegistryConfig()
    """What runs use and what is kept."""
