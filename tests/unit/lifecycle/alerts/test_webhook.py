"""The webhook over HTTP as Alertmanager calls it, and replicas in Kubernetes through the real client."""

from __future__ import annotations

import asyncio
import json

import pytest
from starlette.testclient import TestClient

from cryptoalpha.core.errors import ConfigError, DataError, VenueError
from cryptoalpha.core.time import parse_time
from cryptoalpha.lifecycle.alerts.actions import AlertActions
from cryptoalpha.lifecycle.alerts.book import AlertBook
from cryptoalpha.lifecycle.alerts.config import AlertConfig
from cryptoalpha.lifecycle.alerts.notices import LARGEST_BODY, notices_of_webhook
from cryptoalpha.lifecycle.alerts.scalers import CallScaler, KubernetesScaler, scaler_of
from cryptoalpha.lifecycle.alerts.webhook import PATH, AlertWebhook

TOKEN = "a token of thirty-two characters"
KNOWN = {"Authorization": f"Bearer {TOKEN}"}


def payload(**changes: object) -> dict:
    """What Alertmanager 0.25 sent in the end-to-end test, shortened."""
    alert = {
        "status": "firing",
        "labels": {"alertname": "high_prediction_latency", "arm": "stable", "instance": "127.0.0.1:1", "severity": "warning"},
        "annotations": {"summary": "predictions are late", "action": "wait"},
        "startsAt": "2026-11-23T22:10:44.123456789Z", "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "http://x/graph",
        "fingerprint": "0f1e2d3c4b5a6978",
        **changes,
    }  # fmt: skip
    return {"version": "4", "groupKey": "{}", "receiver": "cryptoalpha", "truncatedAlerts": 0, "status": "firing", "alerts": [alert]}


@pytest.fixture
def scaled() -> list[int]:
    return [1]


@pytest.fixture
def client(tmp_path, scaled):
    async def count() -> int:
        if scaled[-1] < 0:
            raise VenueError("the cluster is away")
        return scaled[-1]

    async def change(replicas: int) -> int:
        scaled.append(replicas)
        return replicas

    book = AlertBook(tmp_path / "alerts.sqlite")
    actions = AlertActions(book, AlertConfig(), now=lambda: 10**18, propose=lambda *given: None, scaler=CallScaler(count, change))
    with TestClient(AlertWebhook(actions, TOKEN).app) as found:
        yield found


def test_a_delivery_is_acted_on_once_however_often_it_comes(client, scaled):
    first, again = (client.post(PATH, json=payload(), headers=KNOWN) for _ in range(2))
    assert (first.status_code, again.status_code) == (200, 200)
    assert [each["kind"] for each in first.json()["done"]] == ["scale"]
    assert again.json() == {"done": []}
    assert scaled == [1, 2]
    assert client.get("/healthz").json() == {"status": "listening"}


@pytest.mark.parametrize("given", ["", "Bearer", f"Bearer {TOKEN}x", f"bearer {TOKEN}", f"Basic {TOKEN}", "Bearer ä"])
def test_without_the_token_nothing_is_heard(client, scaled, given):
    answer = client.post(PATH, json=payload(), headers={"Authorization": given.encode("utf-8")})
    assert (answer.status_code, scaled) == (401, [1])
    assert TOKEN not in answer.text


def test_what_alertmanager_never_sends_is_refused_and_changes_nothing(client, scaled):
    bodies = [
        b"", b"{", b"[]", b"\xff\xfe", json.dumps({**payload(), "version": "3"}).encode(),
        *(json.dumps(payload(**change)).encode() for change in (
            {"status": "maybe"}, {"startsAt": "yesterday"}, {"startsAt": "2026-11-23T22:10:44"}, {"fingerprint": ""},
            {"fingerprint": "'; DROP TABLE deed"}, {"labels": {"arm": "x"}}, {"labels": {"alertname": 3}}, {"labels": None},
        )),
    ]  # fmt: skip
    for body in bodies:
        assert client.post(PATH, content=body, headers=KNOWN).status_code == 400, body
    assert client.post(PATH, content=b" " * (LARGEST_BODY + 1), headers=KNOWN).status_code == 413
    assert client.get(PATH, headers=KNOWN).status_code == 405
    assert scaled == [1]


def test_a_deed_that_failed_is_answered_so_that_it_is_told_again(client, scaled):
    scaled.append(-1)
    answer = client.post(PATH, json=payload(), headers=KNOWN)
    assert (answer.status_code, answer.json()["done"][0]["words"]) == (502, "the cluster is away")
    scaled.append(4)
    assert client.post(PATH, json=payload(), headers=KNOWN).status_code == 200
    assert scaled[-1] == 5


def test_a_short_token_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="fewer than 16"):
        AlertWebhook(AlertActions(AlertBook(tmp_path / "a"), AlertConfig(), now=lambda: 0, propose=print), "short")


def test_a_notice_holds_what_was_sent():
    (found,) = notices_of_webhook(json.dumps(payload()).encode())
    assert (found.alert, found.state, found.fingerprint, found.summary) == (
        "high_prediction_latency", "firing", "0f1e2d3c4b5a6978", "predictions are late",
    )  # fmt: skip
    assert found.labels == {"arm": "stable", "instance": "127.0.0.1:1", "severity": "warning"}
    assert found.begun_at == parse_time("2026-11-23T22:10:44.123457Z")  # to the microsecond
    with pytest.raises(DataError):
        notices_of_webhook(b" " * (LARGEST_BODY + 1))


def cluster(steps):
    """Run `steps(client)` against a stateful API that holds an autoscaler of 2 to 3 replicas and a Deployment of 2."""
    kmock = pytest.importorskip("kmock")
    lightkube = pytest.importorskip("lightkube")
    from lightkube.config.kubeconfig import KubeConfig
    from lightkube.config.models import Cluster, User

    async def run() -> object:
        async with kmock.KubernetesEmulator() as emulator, kmock.Server(emulator):
            emulator.resources["autoscaling/v2/horizontalpodautoscalers"] = {"kind": "HorizontalPodAutoscaler", "namespaced": True}
            api = KubeConfig.from_one(cluster=Cluster(server=str(emulator.url).rstrip("/")), user=User(token="secret"))
            client = lightkube.AsyncClient(config=api, trust_env=False)
            try:
                return await steps(client, emulator)
            finally:
                await client.close()

    return asyncio.run(run())


def test_an_autoscaler_is_given_its_least_replicas_by_the_real_client_within_its_own_bound():
    from lightkube.models.autoscaling_v2 import CrossVersionObjectReference, HorizontalPodAutoscalerSpec
    from lightkube.models.meta_v1 import ObjectMeta
    from lightkube.resources.autoscaling_v2 import HorizontalPodAutoscaler

    async def steps(client, emulator) -> list[object]:
        target = CrossVersionObjectReference(kind="Deployment", name="inference", apiVersion="apps/v1")
        spec = HorizontalPodAutoscalerSpec(maxReplicas=3, minReplicas=2, scaleTargetRef=target)
        await client.create(HorizontalPodAutoscaler(metadata=ObjectMeta(name="inference", namespace="default"), spec=spec))
        scaler = KubernetesScaler("hpa", "inference", "default", client=client)
        found: list[object] = [await scaler.replicas(), await scaler.scale(3), await scaler.replicas(), await scaler.scale(9)]
        kept = await client.get(HorizontalPodAutoscaler, "inference", namespace="default")
        found.append((kept.spec.minReplicas, kept.spec.maxReplicas, kept.spec.scaleTargetRef.name))  # nothing else was changed
        with pytest.raises(VenueError, match="refused hpa default/nobody"):
            await KubernetesScaler("hpa", "nobody", "default", client=client).replicas()
        return found

    assert cluster(steps) == [2, 3, 3, 3, (3, 3, "inference")]


def test_settings_name_what_is_scaled(monkeypatch, tmp_path):
    assert scaler_of(AlertConfig()) is None
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"lifecycle\.alerts\.scale"):
        scaler_of(AlertConfig(scale="hpa"))
