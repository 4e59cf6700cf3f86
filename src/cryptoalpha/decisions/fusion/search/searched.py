"""The searched fusion: families of evidence weighed by tree search over joint scenarios, beside the baselines it must beat to act.

In every bar: outcomes that have matured teach the statistics, the scenarios, the scores and the queue of experience; the baselines fuse;
one search for the whole book chooses the next weights from the last; whoever is in charge (`charge`) gives the bar's fused signals, and
everything else is noted for the day its horizon closes. The search goes on whether or not it is in charge, and `search` says what it found.

Within a family its sources count alike. What is searched is what acts: weights after the search give the expected move (`world.Fuser`) and
the direction `tanh(move / scale)` by the formula the search planned with, and nothing multiplies them afterwards. All that happens is a
function of (settings, seed, networks adopted, values handed in): the same inputs give the same bytes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from cryptoalpha.core.time import DAY, DAYS_PER_YEAR
from cryptoalpha.core.values import FusedSignal, FusionSearch, MarketState, Signal
from cryptoalpha.decisions.config import FusionConfig
from cryptoalpha.decisions.fusion.charge import NAMES, Charge
from cryptoalpha.decisions.fusion.contract import EqualWeights, Fusion
from cryptoalpha.decisions.fusion.experience import Experience, ExperienceQueue, MaturedBar
from cryptoalpha.decisions.fusion.hedge import Hedge
from cryptoalpha.decisions.fusion.outcomes import OUTCOME_CAP
from cryptoalpha.decisions.fusion.ridge import RollingRidge
from cryptoalpha.decisions.fusion.scores import Calibration, log_scores, worst_differences
from cryptoalpha.decisions.fusion.search.actions import ACTIONS, FAMILIES, Moves, equal_weights
from cryptoalpha.decisions.fusion.search.config import SearchConfig
from cryptoalpha.decisions.fusion.search.scenarios import Drawable, ScenarioPool
from cryptoalpha.decisions.fusion.search.state import Reader, Reading, summary
from cryptoalpha.decisions.fusion.search.statistics import FamilyStatistics
from cryptoalpha.decisions.fusion.search.told import fused_signals, prior_shares, told
from cryptoalpha.decisions.fusion.search.world import Fuser, FusionWorld, Risk, positions
from cryptoalpha.learn.search.contract import Budget, Evaluator, PlanResult, Roots, Rules
from cryptoalpha.learn.search.plan import plan
from cryptoalpha.store.tables import Floats


@dataclass(frozen=True)
class _Pending:
    """A bar that waits for its horizon to close."""

    reading: Reading
    due: int
    """When its horizon closes, UTC ns."""
    scale: Floats
    """`[I]`: volatility over the horizon, NaN where there is no verdict to come."""
    directions: Floats
    """`[F, I]`."""
    predictions: Floats
    """`[F, I]`: expected outcomes."""
    stake: Floats
    """`[I]`: log growth per unit of outcome of the positions that the search wanted."""
    charge: float
    """What they cost: trades, moved weights and λ/2 · variance."""
    ticket: int | None


@dataclass(frozen=True)
class _Choice:
    """What the search chose in a bar."""

    weights: Floats
    moves: Floats
    held: Floats
    stake: Floats
    charge: float
    chance: float
    ticket: int | None


class SearchedFusion:
    """Fusion by search; implements `contract.Fusion`.

    Args:
        seed: of the run; each bar's search draws from it and from the bar's time.
        live: whether a bar may take `live_simulations`.
        experience: where decisions wait for their reward, for whoever learns from them; None: nobody does.

    Attributes:
        directions: what every fusion said in the newest bar, `[F, I]` in the order of `charge.NAMES`.
        scores: log score of each fusion in the newest bar that matured, less that of expecting nothing; empty before.
        step_bars: bars of one step of the search: the horizon of its reward.
        matured: what matured in the newest call of `fuse`, oldest first; fusions in the order of `NAMES`.
    """

    name = "search"

    def __init__(
        self,
        config: FusionConfig,
        *,
        seed: int,
        live: bool = False,
        experience: ExperienceQueue | None = None,
    ) -> None:
        self.search: FusionSearch | None = None
        self.experience = experience
        self.matured: tuple[MaturedBar, ...] = ()
        self.scores: dict[str, float] = {}
        self.directions: Floats = np.zeros((len(NAMES), 0))
        self.step_bars = config.horizon_bars
        self._fusion_config, self._config, self._seed, self._live = config, config.search, seed, live
        self._evaluator: Evaluator | None = None
        self._version = ""
        self._reader = Reader(config.search.families, config.search.trade_cost)
        self._statistics = FamilyStatistics(config.search, FAMILIES, config.horizon_bars)
        self._pool = ScenarioPool(config.search)
        self._charge = Charge(config.search, config.horizon_bars)
        self._baselines: tuple[Fusion, ...] = (RollingRidge(config), Hedge(config), EqualWeights())
        self._calibrations = {f: Calibration(config.search, config.horizon_bars) for f in (2, 3)}
        self._waiting: deque[_Pending] = deque()
        self._weights: Floats | None = None
        self._held: Floats = np.zeros(0)
        self._matured = 0

    @property
    def charge(self) -> Charge:
        """Who is in charge, and the evidence."""
        return self._charge

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each family after the newest bar, signed by which way round it is used."""
        signs = Fuser(self._belief).signs if self._weights is not None else np.ones(FAMILIES)
        weights = self._weights if self._weights is not None else np.zeros(FAMILIES)
        return {name: float(weights[k] * signs[k]) for k, name in enumerate(self._reader.families)}

    def adopt(self, evaluator: Evaluator | None, version: str, config: SearchConfig | None = None) -> None:
        """Go on with another network, and with other settings of the search, from the next bar on. Call between two bars.

        Args:
            evaluator: prior and leaf value (`state.features` → logits `[n, 24]`, values `[n]` in units of reward); None: uniform and 0.
            version: what to call it in the journal.

        Families and the size of the pool stay: what is remembered was laid out by them.
        """
        self._evaluator, self._version = evaluator, version
        if config is not None:
            self._config = config.model_copy(update={"families": self._config.families, "pool": self._config.pool})
            for part in (self._statistics, self._pool, self._charge):
                part.follow(self._config)

    def fuse(
        self,
        at: int,
        states: Sequence[MarketState],
        signals: Sequence[Signal],
        *,
        state_events: Sequence[int],
        signal_events: Sequence[int],
    ) -> list[FusedSignal]:
        if not states:  # nothing to weigh, nothing was searched
            self.search, self.matured = None, ()
            return []
        reading = self._reader.read(at, states, signals)
        if len(reading.prices) > len(self._held):
            self._held = np.pad(self._held, (0, len(reading.prices) - len(self._held)))
        self._mature(reading)
        others = [fusion.fuse(at, states, signals, state_events=state_events, signal_events=signal_events) for fusion in self._baselines]
        self._belief = self._statistics.belief(reading.regime)
        before = self._weights if self._weights is not None else equal_weights(reading.speaking)
        choice = self._choose(reading, before)
        self._weights, self._held = choice.weights, choice.held
        mine = fused_signals(
            reading, self._reader, choice.weights * Fuser(self._belief).signs, choice.moves, states, signals, state_events, signal_events,
            scale=self._fusion_config.ridge_scale, horizon=self.step_bars * reading.bar, confidence=choice.chance,
        )  # fmt: skip
        self._note(reading, choice, [mine, *others])
        acting = self._charge.acting
        return mine if acting == 0 else self._named(others[acting - 1], acting, reading)

    def _mature(self, reading: Reading) -> None:
        """Teach everything that learns by the bars whose horizon has closed."""
        matured: list[MaturedBar] = []
        while self._waiting and self._waiting[0].due <= reading.at:
            pending = self._waiting.popleft()
            then, n = pending.reading, len(pending.reading.prices)
            now = reading.prices[:n] if reading.at < pending.due + reading.bar else np.full(n, np.nan)  # after an outage: no verdict
            with np.errstate(invalid="ignore", divide="ignore"):
                outcomes = np.clip(np.log(now / then.prices) / pending.scale, -OUTCOME_CAP, OUTCOME_CAP)
            scores, reward = log_scores(pending.predictions, outcomes), self._settle(pending, outcomes, reading.at)
            matured.append(MaturedBar(then.at, reading.at, pending.predictions, outcomes, scores, reward))
            judged = np.isfinite(outcomes)
            if not judged.any():
                continue
            self._statistics.learn(then.values[judged], then.heard[judged], outcomes[judged], then.regime)
            for f, calibration in self._calibrations.items():
                calibration.learn(pending.directions[f][judged], outcomes[judged])
            self.scores = dict(zip(NAMES, scores.tolist(), strict=True))
            self._charge.learn(scores, worst_differences(pending.predictions, outcomes), int(judged.sum()))
            if self._matured % self._config.pool_stride_bars == 0:
                padded = len(reading.prices) - n
                self._pool.add(
                    np.pad(then.values, ((0, padded), (0, 0))), reading.values,
                    np.pad(outcomes, (0, padded), constant_values=np.nan), then.regime,
                )  # fmt: skip
            self._matured += 1
        self.matured = tuple(matured)

    def _settle(self, pending: _Pending, outcomes: Floats, at: int) -> float:
        """The realised reward of a bar's search; whoever waits for it is told, or told that it will never be known."""
        staked, reward = pending.stake != 0.0, math.nan
        if np.isfinite(outcomes[staked]).all():
            growth = float((pending.stake[staked] * outcomes[staked]).sum())
            reward = math.log1p(max(growth, -0.99)) - pending.charge
        if pending.ticket is not None and self.experience is not None:
            if math.isfinite(reward):
                self.experience.settle(pending.ticket, reward, known_at=at)
            else:
                self.experience.drop(pending.ticket)
        return reward

    def _choose(self, reading: Reading, before: Floats) -> _Choice:
        """One search for the whole book."""
        config, belief, speaking = self._config, self._belief, reading.speaking
        fuser, risk = Fuser(belief), Risk.of(config, reading, self.step_bars)
        known = np.abs(belief.slopes) * speaking
        prior = known / known.sum() if known.sum() > 0.0 else equal_weights(speaking)
        moves = Moves.of(config.delta, prior, speaking)
        drawable = self._pool.drawable(reading.regime, len(reading.prices))
        scale = self._fusion_config.ridge_scale
        base = summary(reading, belief, prior)
        world = FusionWorld(config, reading, belief, drawable, moves, risk=risk, scale=scale, base=base, evaluator=self._evaluator)
        root, legal = world.pack(reading.values, self._held, before), world.legal(before[None])
        result = plan(
            Roots(root, legal=legal, names=("book",)),
            world,
            Budget(config.live_simulations if self._live else config.simulations, outcomes=config.outcomes, max_depth=config.max_depth),
            seed=(self._seed * 1_000_003 + reading.at // reading.bar) & 0x7FFF_FFFF,
            rules=Rules(considered=ACTIONS),
        )
        action = int(result.action[0])
        weights = moves.apply(before[None], result.action)[0]
        move = fuser.moves(weights[None], reading.values[None])[0]
        taken = positions(move[None], scale, risk)[0]
        cost = self._cost(reading, risk, drawable, taken) + config.turnover_cost * float(np.abs(weights - before).sum())
        self.search = told(
            reading, self._reader.families, (before, weights), result, prior=prior_shares(world.evaluate(root)[0][0], legal[0]),
            charge=self._charge, version=self._version,
        )  # fmt: skip
        ticket = self._remember(reading, world.features(root)[0], legal[0], result, action)
        chance = float((weights * belief.chance).sum() / max(weights.sum(), 1e-12))  # − on the only family may leave no weight at all
        return _Choice(weights, move, taken, risk.unit * taken, cost, chance, ticket)

    def _cost(self, reading: Reading, risk: Risk, drawable: Drawable, taken: Floats) -> float:
        """What the positions cost besides moved weights: trades, and λ/2 of their expected variance."""
        staked = risk.unit * taken
        variance = float((staked[:, None] * drawable.covariance * staked).sum())
        traded = float((np.abs(taken - self._held) * risk.notional).sum())
        return reading.cost * traded + 0.5 * self._config.risk_aversion * variance

    def _remember(
        self, reading: Reading, shown: NDArray[np.float32], legal: NDArray[np.bool_], result: PlanResult, action: int
    ) -> int | None:
        if self.experience is None:
            return None
        target = result.policy_target[0].astype(np.float32)
        return self.experience.remember(
            Experience(
                decided_at=reading.at,
                due_at=reading.at + self.step_bars * reading.bar,
                features=shown,
                legal=legal,
                policy_target=target,
                action=action,
                behaviour=max(1e-6, float(target[action])),
                root_value=float(result.q[0, action]),
            )
        )

    def _named(self, fused: Sequence[FusedSignal], acting: int, reading: Reading) -> list[FusedSignal]:
        """A baseline's signals; one that names no expected move gets the calibrated one."""
        if acting not in self._calibrations:
            return list(fused)
        slope, horizon = self._calibrations[acting].slope, self.step_bars * reading.bar
        return [msgspec.structs.replace(one, expected_move=slope * one.direction, horizon=horizon) for one in fused]

    def _note(self, reading: Reading, choice: _Choice, by_fusion: Sequence[Sequence[FusedSignal]]) -> None:
        """Keep what was predicted until it can be judged."""
        directions, predictions = np.zeros((len(NAMES), len(reading.prices))), np.zeros((len(NAMES), len(reading.prices)))
        for f, fused in enumerate(by_fusion):
            for one in fused:
                i = self._reader.instruments[one.instrument]
                directions[f, i] = one.direction
                predictions[f, i] = one.expected_move or 0.0
            if f in self._calibrations:
                predictions[f] = self._calibrations[f].slope * directions[f]
        self.directions = directions
        ahead = self.step_bars * reading.bar
        years = ahead / (DAYS_PER_YEAR * DAY)
        scale = np.where(reading.volatilities > 0.0, reading.volatilities * math.sqrt(years), np.nan)
        self._waiting.append(
            _Pending(reading, reading.at + ahead, scale, directions, predictions, choice.stake, choice.charge, choice.ticket)
        )
