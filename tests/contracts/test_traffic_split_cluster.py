"""Traffic shifted by an HTTPRoute beside a stateful API: what the route keeps, and what other hands and lost answers do to it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.lifecycle.kubernetes.argo import ArgoSplit
from cryptoalpha.lifecycle.kubernetes.httproute import HttpRouteSplit, divided, shares_of
from cryptoalpha.lifecycle.kubernetes.prometheus_counts import PrometheusCounts, paired
from cryptoalpha.lifecycle.kubernetes.workloads import Workloads
from cryptoalpha.lifecycle.rollout.split import CANARY, EDGES, STABLE, ArmCounts, SplitConflictError, SplitUnreachableError

NAME = "cryptoalpha"
MATCH = {"path": {"type": "PathPrefix", "value": "/v1/forecast"}, "method": "POST"}
HEADER = {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-gateway", "value": "a"}]}}
OTHER_RULE = {"matches": [{"path": {"type": "Exact", "value": "/docs"}}], "backendRefs": [{"name": "docs", "port": 80}]}


async def nothing(since: int) -> dict[str, ArmCounts]:
    return {STABLE: ArmCounts(), CANARY: ArmCounts()}


async def at_once(seconds: float) -> None:
    await asyncio.sleep(0)


def backend(arm: str, weight: int) -> dict[str, Any]:
    return {"name": f"{NAME}-{arm}", "port": 80, "weight": weight}


def split_on(api: Any, server: Any, *, canary_replicas: int = 0, ready_seconds: float = 60.0) -> HttpRouteSplit:
    rule = {"matches": [MATCH], "filters": [HEADER], "backendRefs": [backend(STABLE, 1000), backend(CANARY, 0)]}
    server.put("HTTPRoute", NAME, {"parentRefs": [{"name": "public"}], "hostnames": ["a.example"], "rules": [rule, OTHER_RULE]})
    for arm, version, replicas in ((STABLE, "aaa", 2), (CANARY, "", canary_replicas)):
        template = {"metadata": {"annotations": {"cryptoalpha.io/version": version}}}
        server.put("Deployment", f"{NAME}-{arm}", {"replicas": replicas, "template": template})
    ticks = iter(range(1_000, 10**6))
    workloads = Workloads(api, NAME, pause=at_once, ready_seconds=ready_seconds)
    return HttpRouteSplit(api, NAME, workloads=workloads, count=nothing, now=lambda: next(ticks))


def test_only_weights_and_our_mirror_change_of_a_route(on_a_cluster):
    async def body(api: Any, server: Any) -> None:
        split = split_on(api, server)
        begun = await split.ensure("aaa", "bbb")
        shadow = await split.write({STABLE: 1.0}, expected_version=begun.version, shadow=True)
        spec = server.stored("HTTPRoute", NAME)["spec"]
        mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": f"{NAME}-canary", "port": 80}}}
        assert spec["rules"][0] == {
            "matches": [MATCH], "filters": [HEADER, mirror], "backendRefs": [backend(STABLE, 1000), backend(CANARY, 0)],
        }  # fmt: skip
        await split.write({STABLE: 0.95, CANARY: 0.05}, expected_version=shadow.version)
        spec = server.stored("HTTPRoute", NAME)["spec"]
        assert spec["rules"] == [
            {"matches": [MATCH], "filters": [HEADER], "backendRefs": [backend(STABLE, 950), backend(CANARY, 50)]},
            OTHER_RULE,
        ]
        assert (spec["hostnames"], spec["parentRefs"]) == (["a.example"], [{"name": "public"}])

    on_a_cluster(body)


def test_a_hand_that_changes_weights_makes_another_split_with_a_later_beginning(on_a_cluster):
    async def body(api: Any, server: Any) -> None:
        split = split_on(api, server)
        begun = await split.ensure("aaa", "bbb")
        rules = divided(server.stored("HTTPRoute", NAME)["spec"]["rules"], NAME, {STABLE: 0.5, CANARY: 0.5}, shadow=False)
        server.edit("HTTPRoute", NAME, {"spec": {"rules": rules}})
        edited = await split.read()
        assert (edited.weights, edited.version != begun.version, edited.since > begun.since) == ({STABLE: 0.5, CANARY: 0.5}, True, True)
        assert await split.read() == edited
        with pytest.raises(SplitConflictError):
            await split.write({STABLE: 0.9, CANARY: 0.1}, expected_version=begun.version)

    on_a_cluster(body)


def test_a_gateway_that_writes_its_status_in_between_is_no_other_hand(on_a_cluster):
    async def body(api: Any, server: Any) -> None:
        split = split_on(api, server)
        begun = await split.ensure("aaa", "bbb")
        server.before_write = lambda found: found.edit("HTTPRoute", NAME, {"status": {"parents": [{"controllerName": "x"}]}})
        written = await split.write({STABLE: 0.9, CANARY: 0.1}, expected_version=begun.version)
        assert (written.canary_share, await split.read()) == (0.1, written)

    on_a_cluster(body)


def test_a_hand_between_reading_and_writing_wins(on_a_cluster):
    async def body(api: Any, server: Any) -> None:
        split = split_on(api, server)
        begun = await split.ensure("aaa", "bbb")
        rules = divided(server.stored("HTTPRoute", NAME)["spec"]["rules"], NAME, {STABLE: 0.3, CANARY: 0.7}, shadow=False)
        server.before_write = lambda found: found.edit("HTTPRoute", NAME, {"spec": {"rules": rules}})
        with pytest.raises(SplitConflictError):
            await split.write({STABLE: 0.9, CANARY: 0.1}, expected_version=begun.version)
        assert (await split.read()).canary_share == 0.7

    on_a_cluster(body)


def test_an_answer_that_is_lost_may_have_been_written_and_the_next_read_tells(on_a_cluster):
    async def body(api: Any, server: Any) -> None:
        split = split_on(api, server)
        begun = await split.ensure("aaa", "bbb")
        server.lose_answers = 1
        with pytest.raises(SplitUnreachableError):
            await split.write({STABLE: 0.75, CANARY: 0.25}, expected_version=begun.version)
        found = await split.read()
        assert (found.canary_share, found.since > begun.since) == (0.25, True)
        server.fail_with = 503
        with pytest.raises(SplitUnreachableError):
            await split.write({STABLE: 0.5, CANARY: 0.5}, expected_version=found.version)
        assert await split.read() == found

    on_a_cluster(body)


@pytest.mark.parametrize(("status", "hint"), [(403, "Role"), (422, "found the object wrong")])
def test_what_the_api_server_forbids_is_said_with_what_to_do(on_a_cluster, status, hint):
    async def body(api: Any, server: Any) -> None:
        split = split_on(api, server)
        begun = await split.ensure("aaa", "bbb")
        server.fail_with = status
        with pytest.raises(ConfigError, match=f"PATCH HTTPRoute {NAME} in trading") as refused:
            await split.write({STABLE: 0.9, CANARY: 0.1}, expected_version=begun.version)
        assert hint in refused.value.hint

    on_a_cluster(body)


def test_nobody_is_sent_to_pods_that_are_not_ready(on_a_cluster):
    async def body(api: Any, server: Any) -> None:
        split = split_on(api, server, ready_seconds=4.0)
        server.looks_until_ready = 1_000
        with pytest.raises(SplitUnreachableError, match="not ready with version aaa after 4 s: 2 wanted, 0 updated, 0 available"):
            await split.ensure("aaa", "bbb")
        server.looks_until_ready = 2
        begun = await split.ensure("aaa", "bbb")
        canary = server.stored("Deployment", f"{NAME}-canary")
        assert (begun.canary, canary["spec"]["replicas"], canary["metadata"]["annotations"]["cryptoalpha.io/set-by"]) == (
            "bbb",
            1,
            "rollout",
        )
        assert canary["spec"]["template"]["metadata"]["annotations"]["cryptoalpha.io/version"] == "bbb"

    on_a_cluster(body)


def test_a_canary_that_won_serves_till_stable_has_its_version_and_then_rests(on_a_cluster):
    async def body(api: Any, server: Any) -> None:
        split = split_on(api, server)
        await split.ensure("aaa", "bbb")
        stable, canary = (server.stored("Deployment", f"{NAME}-{arm}") for arm in (STABLE, CANARY))
        shares = []

        def look(found: Any) -> None:
            shares.append(shares_of(found.stored("HTTPRoute", NAME)["spec"]["rules"], NAME)[0][CANARY])
            found.before_write = look

        server.before_write = look
        await split.finish(CANARY)
        assert shares == [0.0, 1.0, 1.0, 0.0, 0.0]  # before: all to the canary, stable's version, all to stable, canary away, marks
        assert stable["spec"]["template"]["metadata"]["annotations"]["cryptoalpha.io/version"] == "bbb"
        assert (stable["spec"]["replicas"], canary["spec"]["replicas"]) == (2, 0)

    on_a_cluster(body)


def test_argo_is_told_by_steps_and_promotes_by_its_own_field(on_a_cluster):
    async def body(api: Any, server: Any) -> None:
        template = {"metadata": {"annotations": {"cryptoalpha.io/version": "aaa"}}, "spec": {"containers": [{"name": "inference"}]}}
        server.put("Rollout", NAME, {"template": template, "strategy": {"canary": {"maxSurge": 1, "steps": []}}})
        ticks = iter(range(1_000, 10**6))
        split = ArgoSplit(api, NAME, count=nothing, now=lambda: next(ticks))
        begun = await split.ensure("aaa", "bbb")
        await split.write({STABLE: 0.75, CANARY: 0.25}, expected_version=begun.version)
        spec = server.stored("Rollout", NAME)["spec"]
        assert spec["strategy"]["canary"] == {"maxSurge": 1, "steps": [{"setWeight": 25}, {"pause": {}}]}
        assert spec["template"]["spec"] == {"containers": [{"name": "inference"}]}
        assert spec["template"]["metadata"]["annotations"]["cryptoalpha.io/version"] == "bbb"
        server.edit("Rollout", NAME, {"status": {"abort": True}})
        aborted = await split.read()
        assert (aborted.canary_share, aborted.version.endswith("-aborted")) == (0.0, True)

    on_a_cluster(body)


@pytest.mark.parametrize(
    ("refs", "expected"),
    [
        ([backend(STABLE, 3), backend(CANARY, 1)], 0.25),
        ([{"name": f"{NAME}-stable", "port": 80}, {"name": f"{NAME}-canary", "port": 80}], 0.5),  # a weight that is not given is 1
        ([{"name": f"{NAME}-stable", "port": 80}], 0.0),
    ],
)
def test_a_share_is_a_weight_over_the_sum(refs, expected):
    assert shares_of([OTHER_RULE, {"backendRefs": refs}], NAME)[0][CANARY] == expected


@pytest.mark.parametrize(
    ("rules", "error"),
    [
        ([OTHER_RULE], ConfigError),
        ([{"backendRefs": [backend(STABLE, 1), {"name": "third", "port": 80}]}], ConfigError),
        ([{"backendRefs": [backend(STABLE, 0), backend(CANARY, 0)]}], SplitConflictError),
    ],
)
def test_a_route_that_is_not_ours_to_read_is_refused(rules, error):
    with pytest.raises(error):
        shares_of(rules, NAME)


def serving(answers: dict[tuple[str, float], list[tuple[dict[str, str], float]]]) -> Any:
    """A Prometheus that answers instant queries by (metric, seconds); `last_over_time` stands for what has ended."""
    from aiohttp import web

    async def query(request: web.Request) -> web.Response:
        asked = await request.post()
        text, at = str(asked["query"]), float(str(asked["time"]))
        arm = "canary" if f'service="{NAME}-canary"' in text else "stable"
        metric = "requests" if "predictions_total" in text else "seconds"
        result = [
            {"metric": {"__name__": "x", "pod": arm, **labels}, "value": [at, str(value)]}
            for labels, value in answers.get((f"{arm} {metric}", at), [])
        ]
        return web.Response(text=json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}))

    app = web.Application()
    app.router.add_post("/api/v1/query", query)
    return app


def test_counts_are_rises_of_whole_requests_by_arm_and_a_counter_that_fell_began_anew():
    from aiohttp.test_utils import TestServer

    then, now = 100.0, 160.0
    ok, bad = {"outcome": "ok"}, {"outcome": "nan"}
    answers = {
        ("stable requests", then): [(ok, 1_000.0), (bad, 3.0)],
        ("stable requests", now): [(ok, 1_190.0), (bad, 3.0)],
        ("canary requests", then): [(ok, 50.0)],
        ("canary requests", now): [(ok, 9.0), (bad, 1.0)],  # its process began anew
        ("canary seconds", now): [({"le": "0.05"}, 6.0), ({"le": "0.1"}, 7.0), ({"le": "0.25"}, 9.0), ({"le": "+Inf"}, 9.0)],
    }

    async def main() -> tuple[dict[str, ArmCounts], Exception]:
        server = TestServer(serving(answers))
        await server.start_server()
        source = PrometheusCounts(str(server.make_url("")), namespace="trading", name=NAME, now=lambda: int(now * 1e9))
        found = dict(await source(int(then * 1e9)))
        await server.close()
        with pytest.raises(SplitUnreachableError) as gone:
            await source(int(then * 1e9))
        return found, gone.value

    found, gone = asyncio.run(main())
    assert (found[STABLE].requests, found[STABLE].failures) == (190, {})
    assert (found[CANARY].requests, found[CANARY].failures, found[CANARY].late) == (10, {"nan": 1}, 2)
    buckets = {edge: found[CANARY].latencies[EDGES.index(edge)] for edge in (0.05, 0.1, 0.25)}
    assert (buckets, sum(found[CANARY].latencies)) == ({0.05: 6, 0.1: 1, 0.25: 2}, 9)
    assert "did not answer" in str(gone)


@pytest.mark.parametrize("ratio", [2, 4, 8, 16, 32])
def test_pairs_read_from_either_arms_failures_never_add_evidence(ratio):
    """A request at which both failed is counted once for each arm: at w = ½ it multiplies E by 4r/(1+r)², which lies below 1."""
    canary, stable = 2 * ratio / (1 + ratio), 2 / (1 + ratio)
    assert canary * stable == pytest.approx(4 * ratio / (1 + ratio) ** 2)
    assert canary * stable < 1.0
    seen = paired(ArmCounts(requests=100, failures={"nan": 2}), ArmCounts(requests=98, failures={"error": 5})).pairs
    assert (seen.both_fine, seen.canary_failed, seen.stable_failed) == (91, 5, 2)


def controlled(split: HttpRouteSplit, folder: Any, clock: Any) -> Any:
    from cryptoalpha.lifecycle.rollout.book import RolloutBook
    from cryptoalpha.lifecycle.rollout.config import CanaryConfig
    from cryptoalpha.lifecycle.rollout.controller import CanaryController

    return CanaryController(split, RolloutBook(folder / "rollout.sqlite"), CanaryConfig(), now=clock.now)


def counting(split: Any, clock: Any, *, canary_fails: bool = False) -> Any:
    """Ten requests a second, divided as the route says; stable fails at none, the canary at none or at two of five."""

    def arm(requests: int, failed: int = 0) -> ArmCounts:
        latencies = (0, 0, 0, 0, requests, *(0,) * (len(EDGES) - 4))
        return ArmCounts(requests=requests, failures={"error": failed} if failed else {}, latencies=latencies)

    async def counts(since: int) -> dict[str, ArmCounts]:
        requests, now = 10 * ((clock.now() - since) // 10**9), await split.read()
        asked = requests if now.shadow else round(requests * now.canary_share)
        return {STABLE: arm(requests if now.shadow else requests - asked), CANARY: arm(asked, 2 * asked // 5 if canary_fails else 0)}

    split._count, split._now = counts, clock.now
    return split


@pytest.mark.parametrize(("canary_fails", "stage", "serves"), [(False, "promoted", "bbb"), (True, "rolled_back", "aaa")])
def test_the_controller_takes_a_good_canary_over_and_a_failing_one_back(on_a_cluster, tmp_path, canary_fails, stage, serves):
    from cryptoalpha.core.clock import VirtualClock

    async def body(api: Any, server: Any) -> None:
        clock = VirtualClock(10**18)
        split = counting(split_on(api, server), clock, canary_fails=canary_fails)
        controller = controlled(split, tmp_path, clock)
        state, weights = await controller.begin("aaa", "bbb"), []
        for _ in range(200):
            clock.advance_to(clock.now() + 200 * 10**9)
            state = await controller.step()
            weights.append((await split.read()).canary_share)
            if state.is_over:
                break
        assert (state.stage, (await split.read()).stable) == (stage, serves), (state.reason, controller.trouble)
        template = server.stored("Deployment", f"{NAME}-stable")["spec"]["template"]
        assert template["metadata"]["annotations"]["cryptoalpha.io/version"] == serves
        assert server.stored("Deployment", f"{NAME}-canary")["spec"]["replicas"] == 0
        assert sorted(set(weights)) == ([0.0] if canary_fails else [0.0, 0.05, 0.1, 0.25, 0.5, 1.0])

    on_a_cluster(body)


def test_the_controller_holds_where_a_person_edits_weights(on_a_cluster, tmp_path):
    from cryptoalpha.core.clock import VirtualClock

    async def body(api: Any, server: Any) -> None:
        clock = VirtualClock(10**18)
        split = counting(split_on(api, server), clock)
        controller = controlled(split, tmp_path, clock)
        await controller.begin("aaa", "bbb")
        rules = divided(server.stored("HTTPRoute", NAME)["spec"]["rules"], NAME, {STABLE: 0.3, CANARY: 0.7}, shadow=False)
        server.edit("HTTPRoute", NAME, {"spec": {"rules": rules}})
        clock.advance_to(clock.now() + 200 * 10**9)
        assert (await controller.step()).stage == "hold"
        assert (await split.read()).canary_share == 0.7

    on_a_cluster(body)
