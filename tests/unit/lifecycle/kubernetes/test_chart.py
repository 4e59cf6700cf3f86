"""The Helm chart, profile by profile: real tools find nothing, and what it promises of every pod holds."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[4]
CHART = REPOSITORY / "deploy" / "helm" / "cryptoalpha"
PROFILES = sorted(path.stem for path in (CHART / "profiles").glob("*.yaml"))
CUSTOM = {"HTTPRoute", "ServiceMonitor", "PrometheusRule", "Rollout"}
"""Kinds of other projects whose definitions are at hand. RayCluster's are not: its pods alone are checked, as pods."""


def named(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    return next(each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name))


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod's spec, by the object that makes it."""
    for each in objects:
        spec = each.get("spec", {})
        name = f"{each['kind']} {each['metadata']['name']}"
        if each["kind"] == "CronJob":
            yield name, spec["jobTemplate"]["spec"]["template"]["spec"]
        elif each["kind"] == "RayCluster":
            yield f"{name} head", spec["headGroupSpec"]["template"]["spec"]
            yield from ((f"{name} {group['groupName']}", group["template"]["spec"]) for group in spec["workerGroupSpecs"])
        elif "template" in spec:
            yield name, spec["template"]["spec"]


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


@pytest.mark.parametrize("profile", PROFILES)
def test_helm_lint_finds_nothing(profile, tool):
    command = [tool("helm"), "lint", "--strict", str(CHART), "--values", str(CHART / "profiles" / f"{profile}.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, "1 chart(s) linted, 0 chart(s) failed" in done.stdout) == (0, True), done.stdout


@pytest.mark.parametrize("version", ["1.29", "1.37"])
@pytest.mark.parametrize("profile", PROFILES)
def test_every_object_fits_the_api_strictly(profile, version, chart):
    validate = pytest.importorskip("kubernetes_validate")
    objects = [*chart(profile)]
    for each in chart(profile):
        if each["kind"] == "RayCluster":
            objects += [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod} for _, pod in pods([each])]
    checked = 0
    for each in objects:
        if each["kind"] not in CUSTOM | {"RayCluster"}:
            validate.validate(each, version, strict=True)
            checked += 1
    assert checked >= 5
    with pytest.raises(validate.ValidationError):
        validate.validate({**objects[0], "spce": {}}, version, strict=True)


@pytest.mark.parametrize("profile", PROFILES)
def test_custom_resources_fit_their_projects_definitions_strictly(profile, chart, validators):
    found = [each for each in chart(profile) if each["kind"] in CUSTOM]
    command = ["node", str(REPOSITORY / ".ci" / "crds.mjs"), str(validators)]
    done = subprocess.run(command, input=json.dumps(found), capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_the_check_of_custom_resources_sees_a_wrong_value_and_an_unknown_field(chart, validators):
    route = next(each for each in chart("serving") if each["kind"] == "HTTPRoute")
    broken = json.loads(json.dumps(route))
    broken["spec"]["rules"][0]["backendRefs"][0]["weight"] = -1
    misspelt = json.loads(json.dumps(route))
    misspelt["spec"]["rules"][0]["backendRefs"][0]["wieght"] = 1
    for wrong, said in ((broken, "must be >= 0"), (misspelt, "'\"wieght\"' does not exist")):
        command = ["node", str(REPOSITORY / ".ci" / "crds.mjs"), str(validators)]
        done = subprocess.run(command, input=json.dumps([wrong]), capture_output=True, text=True, check=False, timeout=120)
        assert (done.returncode, said in done.stdout) == (6, True), done.stdout


@pytest.mark.parametrize("profile", PROFILES)
def test_every_pod_is_restricted(profile, chart):
    for name, pod in pods(chart(profile, "dashboard.enabled=true")):
        security = pod["securityContext"]
        assert (security["runAsNonRoot"], security["seccompProfile"]["type"]) == (True, "RuntimeDefault"), name
        assert security["runAsUser"] >= 10_000, name
        assert pod["enableServiceLinks"] is False, f"{name}: Kubernetes would put CRYPTOALPHA_PORT into it, which is read as a setting"
        assert not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")), name
        assert all("hostPath" not in volume for volume in pod["volumes"]), name
        for each in containers(pod):
            where, own = f"{name} {each['name']}", each["securityContext"]
            assert (own["readOnlyRootFilesystem"], own["allowPrivilegeEscalation"], own["capabilities"]["drop"]) == (
                True,
                False,
                ["ALL"],
            ), where
            assert "memory" in each["resources"]["limits"], f"{where}: without a limit it takes its neighbours' memory"
            assert "memory" in each["resources"]["requests"], where


@pytest.mark.parametrize("profile", PROFILES)
def test_only_who_speaks_to_the_api_server_has_a_token(profile, chart):
    with_token = {name for name, pod in pods(chart(profile)) if pod.get("automountServiceAccountToken", True)}
    assert {re.sub(r"-[01]{12}$", "", name) for name in with_token} <= {
        "Job cryptoalpha-rollout", "Deployment cryptoalpha-alerts", "RayCluster cryptoalpha-ray head",
    }  # fmt: skip


@pytest.mark.parametrize("profile", PROFILES)
def test_roles_name_what_they_may_touch(profile, chart):
    for each in chart(profile):
        assert each["kind"] not in ("ClusterRole", "ClusterRoleBinding")
        if each["kind"] == "Role":
            for rule in each["rules"]:
                assert rule["resourceNames"]
                assert set(rule["verbs"]) <= {"get", "patch"}


def test_a_setting_of_the_chart_reaches_the_program_and_nothing_in_it_is_unknown(chart, tmp_path, monkeypatch):
    from cryptoalpha.app.settings import read_settings

    for profile in PROFILES:
        objects = chart(profile)
        file = tmp_path / f"{profile}.yaml"
        file.write_text(named(objects, "ConfigMap", "cryptoalpha")["data"]["cryptoalpha.yaml"])
        secrets = tmp_path / "secrets"
        secrets.mkdir(exist_ok=True)
        token = secrets / "token"
        token.write_text("t")
        for _, pod in pods(objects):
            for each in containers(pod):
                given = {one["name"]: str(one.get("value", "x")) for one in each.get("env", [])}
                given = {key: str(token) if key.endswith("_FILE") else value for key, value in given.items()}
                if "CRYPTOALPHA_SECRETS_DIR" in given:
                    given["CRYPTOALPHA_SECRETS_DIR"] = str(secrets)
                given.pop("CRYPTOALPHA_CONFIG", None)
                found = read_settings(file, environment=given, directory=tmp_path).settings
                if each["name"] == "engine":
                    assert (found.monitoring.metrics.port, str(found.monitoring.metrics.address)) == (9464, "0.0.0.0")
                if each["name"] == "inference":
                    assert (found.lifecycle.serving.host, found.lifecycle.serving.port) == ("0.0.0.0", 8100)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_command_exists_with_these_options(profile, chart):
    import typer.main

    from cryptoalpha.app.verbs import build

    program: Any = typer.main.get_command(build())
    seen = 0
    for name, pod in pods(chart(profile)):
        for each in containers(pod):
            if "command" in each or not each.get("args"):
                texts = re.findall(r"cryptoalpha ([a-z]+(?: [a-z]+)?)((?: --[a-z]+)*)", " ".join(each.get("args", [])))
                asked = [(words.split(), options.split()) for words, options in texts]
            else:
                asked = [([each["args"][0]], [part for part in each["args"] if part.startswith("--")])]
            for words, options in asked:
                command: Any = program
                for word in words:
                    command = command.commands[word] if hasattr(command, "commands") else command
                known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
                assert set(options) <= known, f"{name} {each['name']}: {words} {set(options) - known}"
                seen += 1
    assert seen >= 1


def test_there_is_one_writer_and_its_number_is_no_value(chart):
    engine = named(chart("production"), "StatefulSet", "cryptoalpha-engine")["spec"]
    assert (engine["replicas"], engine["podManagementPolicy"]) == (1, "OrderedReady")
    assert engine["volumeClaimTemplates"][0]["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert "additional properties 'replicas' not allowed" in chart.refused("production", "engine.replicas=2")
    assert "engine/store/accessMode" in chart.refused("production", "engine.store.accessMode=ReadWriteMany").replace(".", "/")


def test_whoever_writes_the_store_runs_on_the_engines_node(chart):
    writers = []
    for name, pod in pods(chart("production")):
        claims = [volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume]
        if "store-cryptoalpha-engine-0" in claims:
            writers.append(name.partition(" ")[2])
            term = pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]
            assert term["topologyKey"] == "kubernetes.io/hostname"
            assert term["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == "engine"
    assert sorted(writers) == ["cryptoalpha-alerts", "cryptoalpha-retrain", "cryptoalpha-rollout-111111111111"]


def test_real_orders_need_a_secret_and_a_setting(chart):
    assert "`secret` must name the Secret" in chart.refused("minimal", "engine.live=true")
    assert "allow_live must be true" in chart.refused("minimal", "engine.live=true", "secret=keys")
    engine = named(
        chart("minimal", "engine.live=true", "secret=keys", "settings.execution.allow_live=true"), "StatefulSet", "cryptoalpha-engine"
    )
    container = engine["spec"]["template"]["spec"]["containers"][0]
    assert ("--live" in container["args"], "--feed" in container["args"]) == (True, False)
    assert {"name": "CRYPTOALPHA_LIVE", "value": "1"} in container["env"]
    paper = named(chart("minimal"), "StatefulSet", "cryptoalpha-engine")["spec"]["template"]["spec"]["containers"][0]
    assert not {"--live"} & set(paper["args"])
    assert not any(each["name"] == "CRYPTOALPHA_LIVE" for each in paper["env"])


@pytest.mark.parametrize(("weight", "expected"), [(0, [1000, 0]), (50, [950, 50]), (1000, [0, 1000])])
def test_weights_of_the_route_add_up_and_are_never_all_zero(chart, weight, expected):
    route = named(chart("serving", f"route.canaryWeight={weight}"), "HTTPRoute", "cryptoalpha")
    assert [each["weight"] for each in route["spec"]["rules"][0]["backendRefs"]] == expected


def test_what_does_not_go_together_is_refused_in_words(chart):
    assert "inference.stable.version" in chart.refused("", "inference.enabled=true")
    assert "inference.enabled must be true" in chart.refused("", "route.enabled=true")
    assert "streams.enabled must be true" in chart.refused("", "listener.enabled=true")
    assert "networkPolicy.streams" in chart.refused("", "streams.enabled=true", "streams.kafka=k:9092", "streams.redis=r:6379")


@pytest.mark.parametrize("profile", PROFILES)
def test_nobody_reaches_anybody_unless_a_policy_says_so(profile, chart):
    policies = [each for each in chart(profile) if each["kind"] == "NetworkPolicy"]
    base = named(policies, "NetworkPolicy", "cryptoalpha")["spec"]
    assert (base["ingress"], sorted(base["policyTypes"])) == ([], ["Egress", "Ingress"])
    assert [port["port"] for rule in base["egress"] for port in rule["ports"]] == [53, 53]
    for each in policies:
        for rule in [*each["spec"].get("ingress", []), *each["spec"].get("egress", [])]:
            assert rule.get("from") or rule.get("to"), f"{each['metadata']['name']} is open to everybody"


def test_the_rules_and_the_dashboard_of_the_chart_are_those_of_the_code():
    from cryptoalpha.app.rendering import chart_files

    for name, text in chart_files().items():
        assert (CHART / "files" / name).read_text(encoding="utf-8") == text, f"{name} is not what the code says: run `make chart`"


def test_the_dashboard_asks_for_metrics_that_exist():
    from cryptoalpha.monitoring.metrics import METRICS

    board = json.loads((CHART / "files" / "grafana.json").read_text(encoding="utf-8"))
    asked = {name for panel in board["panels"] for one in panel.get("targets", []) for name in re.findall(r"cryptoalpha_\w+", one["expr"])}
    assert len(asked) >= 15
    assert {name.removesuffix("_bucket") for name in asked} - set(METRICS) == set()
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_the_chart_is_of_the_packages_version():
    from cryptoalpha import __version__

    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == __version__
    assert f"cryptoalpha:{__version__}" in (REPOSITORY / "deploy" / "compose.yaml").read_text()


def test_the_dockerfile_has_no_fault_that_hadolint_knows(tool):
    done = subprocess.run([tool("hadolint"), str(REPOSITORY / "deploy" / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_compose_file_is_valid_and_its_ports_are_this_machines_own(tool):
    file = REPOSITORY / "deploy" / "compose.yaml"
    command = [tool("docker-compose"), "--file", str(file), "--profile", "serving", "--profile", "training", "config", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"], "HOME": "/tmp"})
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    assert set(services) == {"engine", "inference", "retrain", "prometheus"}
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), name
        assert service["cap_drop"] == ["ALL"], name
    assert services["engine"]["environment"]["CRYPTOALPHA_ENGINE__AUTO_TRADING"] == "false"
