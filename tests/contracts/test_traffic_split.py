"""What every back end of a traffic split promises: the router in this process, and those on a cluster beside a stateful API."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from itertools import count, pairwise
from typing import Any

import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.lifecycle.rollout.split import CANARY, STABLE, ArmCounts, SplitConflictError, TrafficSplit

Body = Callable[[TrafficSplit], Awaitable[None]]
SHADOWLESS = {"argo"}
NAME = "cryptoalpha"


def ticking() -> Callable[[], int]:
    """A clock that stands still half of the time, as clocks of another machine may."""
    ticks: Iterator[int] = count(1_000)
    return lambda: next(ticks) // 2


async def nothing(since: int) -> dict[str, ArmCounts]:
    return {STABLE: ArmCounts(), CANARY: ArmCounts()}


async def at_once(seconds: float) -> None:
    await asyncio.sleep(0)


def route_spec() -> dict[str, Any]:
    backends = [{"name": f"{NAME}-{arm}", "port": 80, "weight": weight} for arm, weight in ((STABLE, 1000), (CANARY, 0))]
    match = {"path": {"type": "PathPrefix", "value": "/v1/forecast"}}
    own = {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-gateway", "value": "a"}]}}
    return {"parentRefs": [{"name": "public"}], "rules": [{"matches": [match], "filters": [own], "backendRefs": backends}]}


def deployment_spec(version: str, replicas: int) -> dict[str, Any]:
    return {"replicas": replicas, "template": {"metadata": {"annotations": {"cryptoalpha.io/version": version}}}}


@pytest.fixture(params=["inprocess", "httproute", "argo"])
def with_split(request: pytest.FixtureRequest) -> Callable[[Body], None]:
    if request.param == "inprocess":
        from cryptoalpha.lifecycle.rollout.router import Router

        async def alone(body: Body) -> None:
            await body(Router(stable="aaa", salt="s", now=ticking()))

        return lambda body: asyncio.run(alone(body))

    on_a_cluster = request.getfixturevalue("on_a_cluster")

    async def beside(api: Any, server: Any, body: Body) -> None:
        from cryptoalpha.lifecycle.kubernetes.argo import ArgoSplit
        from cryptoalpha.lifecycle.kubernetes.httproute import HttpRouteSplit
        from cryptoalpha.lifecycle.kubernetes.workloads import Workloads

        if request.param == "argo":
            server.put("Rollout", NAME, {**deployment_spec("aaa", 2), "strategy": {"canary": {"steps": []}}})
            await body(ArgoSplit(api, NAME, count=nothing, now=ticking()))
            return
        server.put("HTTPRoute", NAME, route_spec())
        server.put("Deployment", f"{NAME}-stable", deployment_spec("aaa", 2))
        server.put("Deployment", f"{NAME}-canary", deployment_spec("", 0))
        workloads = Workloads(api, NAME, pause=at_once)
        await body(HttpRouteSplit(api, NAME, workloads=workloads, count=nothing, now=ticking()))

    return lambda body: on_a_cluster(lambda api, server: beside(api, server, body))


@pytest.fixture
def has_shadow(request: pytest.FixtureRequest) -> bool:
    return request.node.callspec.params["with_split"] not in SHADOWLESS


def test_a_rollout_begins_with_everything_at_stable_and_ensuring_the_same_pair_again_changes_nothing(with_split):
    async def body(split: TrafficSplit) -> None:
        begun = await split.ensure("aaa", "bbb")
        assert (begun.weights, begun.shadow, begun.stable, begun.canary) == ({STABLE: 1.0, CANARY: 0.0}, False, "aaa", "bbb")
        written = await split.write({STABLE: 0.75, CANARY: 0.25}, expected_version=begun.version)
        assert await split.ensure("aaa", "bbb") == written == await split.read()
        again = await split.ensure("aaa", "ccc")
        assert (again.weights, again.canary) == ({STABLE: 1.0, CANARY: 0.0}, "ccc")
        with pytest.raises(ConfigError, match="its own canary"):
            await split.ensure("aaa", "aaa")

    with_split(body)


def test_weights_are_read_back_and_every_state_has_a_name_and_a_beginning_of_its_own(with_split):
    async def body(split: TrafficSplit) -> None:
        states = [await split.ensure("aaa", "bbb")]
        for share in (0.05, 0.1, 0.1, 0.25, 0.5, 1.0, 0.0):
            states.append(await split.write({STABLE: 1.0 - share, CANARY: share}, expected_version=states[-1].version))
            found = await split.read()
            assert found == states[-1]
            assert found.is_set({STABLE: 1.0 - share, CANARY: share}, shadow=False)
        assert len({state.version for state in states}) == len(states)
        assert all(earlier.since < later.since for earlier, later in pairwise(states))

    with_split(body)


def test_a_write_for_another_state_than_the_one_there_is_refused_and_changes_nothing(with_split):
    async def body(split: TrafficSplit) -> None:
        old = await split.ensure("aaa", "bbb")
        new = await split.write({STABLE: 0.9, CANARY: 0.1}, expected_version=old.version)
        with pytest.raises(SplitConflictError):
            await split.write({STABLE: 0.5, CANARY: 0.5}, expected_version=old.version)
        assert await split.read() == new

    with_split(body)


def test_of_writers_at_once_one_wins(with_split):
    async def body(split: TrafficSplit) -> None:
        begun = await split.ensure("aaa", "bbb")
        writes = [split.write({STABLE: 1.0 - share, CANARY: share}, expected_version=begun.version) for share in (0.1, 0.2, 0.3)]
        done = await asyncio.gather(*writes, return_exceptions=True)
        won = [each for each in done if not isinstance(each, BaseException)]
        assert [type(each) for each in done if isinstance(each, BaseException)] == [SplitConflictError] * 2
        assert won == [await split.read()]

    with_split(body)


@pytest.mark.parametrize("weights", [{STABLE: 0.0, CANARY: 0.0}, {STABLE: 0.5}, {STABLE: 1.2, CANARY: -0.2}, {STABLE: 0.5, "blue": 0.5}])
def test_weights_that_cannot_be_are_refused(with_split, weights):
    async def body(split: TrafficSplit) -> None:
        begun = await split.ensure("aaa", "bbb")
        with pytest.raises(ConfigError):
            await split.write(weights, expected_version=begun.version)
        assert await split.read() == begun

    with_split(body)


def test_shadow_is_a_state_in_which_the_canary_answers_nothing(with_split, has_shadow):
    async def body(split: TrafficSplit) -> None:
        begun = await split.ensure("aaa", "bbb")
        if not has_shadow:
            with pytest.raises(ConfigError, match="no shadow"):
                await split.write({STABLE: 1.0}, expected_version=begun.version, shadow=True)
            return
        shadow = await split.write({STABLE: 1.0}, expected_version=begun.version, shadow=True)
        assert (shadow.shadow, shadow.canary_share) == (True, 0.0)
        assert await split.read() == shadow
        with pytest.raises(ConfigError):
            await split.write({STABLE: 0.9, CANARY: 0.1}, expected_version=shadow.version, shadow=True)
        after = await split.write({STABLE: 0.9, CANARY: 0.1}, expected_version=shadow.version)
        assert (after.shadow, (await split.read()).shadow) == (False, False)

    with_split(body)


def test_counts_name_both_arms(with_split):
    async def body(split: TrafficSplit) -> None:
        begun = await split.ensure("aaa", "bbb")
        assert set(await split.counts(begun.since)) == {STABLE, CANARY}

    with_split(body)


@pytest.mark.parametrize(("winner", "stays"), [(CANARY, "bbb"), (STABLE, "aaa")])
def test_the_winner_is_stable_from_then_on_and_finishing_twice_is_finishing_once(with_split, winner, stays):
    async def body(split: TrafficSplit) -> None:
        begun = await split.ensure("aaa", "bbb")
        await split.write({STABLE: 0.0, CANARY: 1.0}, expected_version=begun.version)
        await split.finish(winner)
        done = await split.read()
        assert (done.weights, done.stable, done.canary) == ({STABLE: 1.0, CANARY: 0.0}, stays, "")
        await split.finish(winner)
        assert await split.read() == done
        with pytest.raises(ConfigError, match="no canary"):
            await split.write({STABLE: 0.5, CANARY: 0.5}, expected_version=done.version)

    with_split(body)
