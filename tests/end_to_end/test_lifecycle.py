"""The life of a model on a simulated market: born, judged, champion; its edge dies, drift is noticed, a successor is trained, judged, tried
on a share of requests and promoted; then worse challengers are rolled back where they first can be known. `make e2e-lifecycle`.

Everything is real but the market and the people who ask: trainings, registry, gates, router, controller, their books on disk. Networks are
as small as the audit's, so that two campaigns take minutes; requests are answered by the very forecasters of the versions in traffic.

Not all gates are required here (`REQUIRED`). Those that are not are judged and printed, and two refuse: in 52 judged days the
successor does not beat every baseline beyond chance, and earns less than the champion still does (most likely because its fusion goes on
learning while it runs). With the default gates the champion would stay: this shows that the machinery works, not that this successor is
better. Limits of latency and memory are wide, for the machines of tests.
"""

from __future__ import annotations

import asyncio
import math
import sys
import threading
from collections.abc import Callable

import pytest

from cryptoalpha.app.live_monitor import LiveMonitor
from cryptoalpha.app.period import Period
from cryptoalpha.app.retrain_proposals import DriftProposals
from cryptoalpha.app.retraining import LINE, Retraining, Source
from cryptoalpha.app.settings import Settings
from cryptoalpha.app.trade import replay
from cryptoalpha.core.time import DAY, HOUR, SECOND, iso, parse_time
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated_change import simulate_change
from cryptoalpha.lifecycle.registry.registry import ModelRegistry
from cryptoalpha.lifecycle.retrain.campaign import campaigns
from cryptoalpha.lifecycle.retrain.triggers import answered, propose, waiting
from cryptoalpha.lifecycle.rollout.book import RolloutBook
from cryptoalpha.lifecycle.rollout.controller import CanaryController
from cryptoalpha.lifecycle.rollout.router import Router
from cryptoalpha.lifecycle.serving.predictor import Predictor
from cryptoalpha.lifecycle.serving.windows import Window

BEFORE = SimulatedConfig(assets=5, bars=9_120, edge=0.5, news_share=1.0, funding_share=0.0, flow_share=0.0)
AFTER = BEFORE.model_copy(update={"news_share": 0.0, "funding_share": 1.0, "edge": 0.7})
DEATH = 5_280
SEED = 3
REQUIRED = ["look_ahead", "walk_forward", "track_record", "latency", "memory", "shadow_parity", "shadow_latency"]

SETTINGS = Settings.model_validate({
    "engine": {"seed": SEED},
    "data": {"simulated": BEFORE.model_dump()},
    "signals": {"forecast": {"horizon_bars": [1, 6]}},
    "fusion": {"warmup_days": 20, "search": {"simulations": 8}},
    "learn": {"evolution": {"population": 8}},
    "monitoring": {"drift": {"reference_days": 60}},
    "nets": {
        "preset": "custom",
        "evoformer": {
            "sequence_width": 8, "pair_width": 4, "head_width": 4, "heads": 2, "pair_heads": 1, "pair_head_width": 4, "outer_width": 2,
            "blocks": 1,
        },
        "genome": {
            "window_bars": 16, "width": 8, "heads": 2, "layers": 1, "pair_width": 4, "pair_heads": 1, "pair_head_width": 4,
            "outer_width": 4,
        },
    },
    "lifecycle": {
        "train": {
            "train_days": 60, "test_days": 60, "epochs": 1, "evolve_generations": 1, "stride_bars": 2, "processes": 1,
        },
        "retrain": {"folds": 1, "earlier": 1, "attempts": 1, "retry_minutes": 0, "nice": 0},
        "gates": {
            "required": REQUIRED, "holdout_days": 8, "minimum_days": 30, "audit_training": False, "audit_bars": 100, "audit_cuts": 1,
            "path_blocks": 3, "path_tested": 2, "shadow_days": 5, "latency_answers": 100, "resamples": 200,
            "latency_seconds": 2.0, "memory_mib": 4096,
        },
        "canary": {"minimum_seconds": 60, "bake_seconds": 120, "look_seconds": 30, "latency_seconds": 0.05},
    },
})  # fmt: skip

CHILD = f"""
import sys
from cryptoalpha.app.retraining_child import main
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated_change import simulate_change

BEFORE = SimulatedConfig.model_validate({BEFORE.model_dump()!r})
AFTER = SimulatedConfig.model_validate({AFTER.model_dump()!r})
if __name__ == "__main__":  # the judgement asks for answers in a process of its own, which reads this file again
    main(sys.argv[1:], lambda settings, plan: simulate_change(BEFORE, AFTER, {DEATH}, {SEED}))
"""
Answer = tuple[float, ...]


class Hand:
    """A clock that is moved by hand."""

    def __init__(self, now: int) -> None:
        self.at = now

    def __call__(self) -> int:
        return self.at


class Traffic:
    """People who ask, each with a key of their own; versions answer with what their forecasters say about real windows."""

    def __init__(self, router: Router[Answer], answers: dict[str, Callable[[int], Answer]]) -> None:
        self.router, self.answers, self.asked = router, answers, 0
        self.by_version: dict[str, int] = {}

    async def ask(self, count: int) -> None:
        async def one(number: int) -> None:
            async def call(version: str) -> Answer:
                found = self.answers[version](number)
                if asyncio.iscoroutine(found):
                    found = await found
                return found

            routed = await self.router.answer(f"request-{number}", call)
            assert all(map(math.isfinite, routed.answer))  # whatever the canary does, nobody is given it
            self.by_version[routed.version] = self.by_version.get(routed.version, 0) + 1

        for _ in range(0, count, 50):
            await asyncio.gather(*(one(self.asked + k) for k in range(50)))
            self.asked += 50
            await self.router.drain()


def fault(answer: Answer) -> str | None:
    return None if all(map(math.isfinite, answer)) else "nan"


def router_of(stable: str, now: Hand, **more: object) -> Router[Answer]:
    return Router(stable=stable, salt="e2e", now=now, check=fault, late_seconds=SETTINGS.lifecycle.canary.latency_seconds, **more)


@pytest.fixture(scope="module")
def market():
    return simulate_change(BEFORE, AFTER, DEATH, SEED)


@pytest.fixture(scope="module")
def life(tmp_path_factory, market):
    """Both campaigns, and what was heard between them."""
    place = tmp_path_factory.mktemp("life")
    home, child = place / "home", place / "child.py"
    child.write_text(CHILD)
    start = parse_time(BEFORE.start)
    now = Hand(start + DEATH * HOUR)
    said: list[str] = []

    def retraining(until: int | None, split: Router[Answer] | None = None) -> Retraining:
        source = Source(simulated=True, until=None if until is None else iso(until))
        return Retraining(
            SETTINGS, home, source, now, split, child=(sys.executable, str(child)), tell=said.append,
            open_data=lambda settings, plan: market,
        )  # fmt: skip

    first = retraining(start + DEATH * HOUR)
    propose(first.book, "hand", now())
    born = first.runner().run()
    registry = ModelRegistry(home / "models" / "registry", now=now)
    old = registry.champion_id(LINE)

    hear = DriftProposals(home, SETTINGS.lifecycle.retrain, said.append)
    with LiveMonitor(SETTINGS, said.append, drift=hear) as monitor:
        replay(
            SETTINGS, market, Period(start, start + BEFORE.bars * HOUR), home / "journal.sqlite", run="life", speed=0.0,
            stop=threading.Event(), say=lambda words: None, monitor=monitor,
        )  # fmt: skip
    alarms = waiting(first.book)

    now.at = start + BEFORE.bars * HOUR + 8 * DAY  # after the cooldown
    return {"place": place, "home": home, "now": now, "said": said, "born": born, "registry": registry, "old": old, "alarms": alarms,
            "start": start, "retraining": retraining}  # fmt: skip


def answers_of(registry: ModelRegistry, version: str, market, start: int) -> Callable[[int], Answer]:
    """What the version's forecaster says about forty real windows, computed once each."""
    predictor = Predictor(registry.get(version).path / "forecaster", version)
    kept: list[Answer] = []
    for k in range(40):
        newest = start + (BEFORE.bars - 1 - 3 * k) * HOUR
        rows = predictor.about.rows_needed + 1
        known = market.known_until(newest + HOUR)
        answer = predictor.answer(Window(known, HOUR, newest, rows))
        kept.append(tuple(one.up - one.down for each in answer.forecasts for one in each.horizons))
    return lambda number: kept[number % len(kept)]


@pytest.mark.slow
def test_an_edge_dies_and_the_champion_is_succeeded(life, market):
    registry, now, start = life["registry"], life["now"], life["start"]
    assert (life["born"].did, life["born"].campaign.outcome) == ("ended", "promoted"), life["born"].words
    assert life["old"] is not None

    assert life["alarms"], "nobody noticed that the edge died"
    death = start + DEATH * HOUR
    assert all(one.cause == "drift" for one in life["alarms"])
    early = [f"{one.subject} {(death - one.first_at) / DAY:.0f} days before" for one in life["alarms"] if one.first_at < death]
    print(f"alarms while the edge lived: {early or 'none'}")
    assert len(early) <= 1, "a detector of one false alarm in a year sounded again and again while the edge lived"
    assert sum(one.times for one in life["alarms"]) <= 3
    noticed = min(one.last_at for one in life["alarms"] if one.last_at > death)
    print(f"noticed {(noticed - death) / DAY:.0f} days after the edge died: {[(one.subject, one.detail) for one in life['alarms']]}")

    router = router_of(life["old"], now)
    runner = life["retraining"](None, router).runner()
    standing = runner.run()
    assert standing.did == "waits", standing.words  # the canary's first look: shadow
    candidate = standing.campaign.results["register"]["version"]
    answers = {name: answers_of(registry, name, market, start) for name in (life["old"], candidate)}
    traffic, stages = Traffic(router, answers), []
    for _ in range(60):
        stages.append(standing.words.split(":")[1].strip())
        if standing.did == "ended":
            break
        asyncio.run(traffic.ask(3_000))
        now.at += 120 * SECOND
        standing = runner.run()
    assert (standing.did, standing.campaign.outcome) == ("ended", "promoted"), standing.words
    assert registry.champion_id(LINE) == candidate != life["old"]
    assert registry.get(candidate).parent == life["old"]
    assert {one.cause for one in answered(runner.path, 2)} == {"drift"}
    assert registry.reports(candidate)[-1].passed
    print("judged:", registry.reports(candidate)[-1].content)
    assert [one.outcome for one in campaigns(runner.path)] == ["promoted", "promoted"]
    seen = [stage for k, stage in enumerate(stages) if k == 0 or stages[k - 1] != stage]
    print(f"stages {seen}; {traffic.asked} requests, {traffic.by_version}")
    assert seen[0].startswith("shadow")
    assert traffic.asked == sum(traffic.by_version.values())
    with RolloutBook(life["home"] / "lifecycle" / "rollout.sqlite") as book:
        story = [(line.stage, line.step) for line in book.story(1)]
    assert story == [("shadow", -1), *(("step", k) for k in range(5)), ("bake", 4), ("promoted", 4)]


def errs(number: int) -> Answer:
    if number % 5 < 2:
        raise ValueError("two of five")
    return (0.1,)


async def slow(number: int) -> Answer:
    await asyncio.sleep(0.08)
    return (0.1,)


WORSE: dict[str, Callable[[int], object]] = {
    "errs 40 %": errs,
    "slow": slow,
    "nan": lambda number: (math.nan,),
    "turned": lambda number: (-0.1,),
    "worse Brier": lambda number: (0.1,),
}


@pytest.mark.parametrize("name", list(WORSE))
def test_a_worse_challenger_is_rolled_back_in_shadow_where_it_answers_nobody(name, tmp_path):
    now = Hand(1_000 * DAY)
    config = SETTINGS.lifecycle.canary
    router = router_of("good", now, differ=lambda one, other: one[0] * other[0] < 0)
    traffic = Traffic(router, {"good": lambda number: (0.1,), "worse": WORSE[name]})
    requests = 0
    with RolloutBook(tmp_path / "rollout.sqlite") as book:
        controller = CanaryController(router, book, config, now=now)
        asyncio.run(controller.begin("good", "worse"))
        state = controller.state
        while not state.is_over and requests < 3_000:
            asyncio.run(traffic.ask(50))
            requests += 50
            if name == "worse Brier":
                for k in range(50):
                    router.record_brier(0.20 + 0.02 * (k % 3), 0.30 + 0.02 * (k % 3))
            now.at += 10 * SECOND
            state = asyncio.run(controller.step())
    assert state.stage == "rolled_back", (state.stage, state.step)
    assert state.step == -1  # in shadow: not one request was answered by it
    assert traffic.by_version == {"good": requests}
    print(f"{name}: rolled back after {requests} requests in shadow: {state.reason}")
    assert requests <= 200
