"""What contracts are held against: the fake publisher of the sources' own tests, a real Redis server, a stateful Kubernetes API."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent


def _loaded(path: Path, name: str) -> ModuleType:
    """A module by its place: tests do not import each other by name."""
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


_SOURCES = _loaded(HERE.parent / "unit" / "data" / "sources" / "conftest.py", "sources_conftest")
publisher, virtual_time, as_publishers_do = _SOURCES.publisher, _SOURCES.virtual_time, _SOURCES.as_publishers_do


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`case`: every source of `sources/`, whose files each define CASES; with `fault`, each with each of its own.

    `keyed_case`, `repeats_case` and the like are those of them to which that applies.
    """
    asked = next((name for name in metafunc.fixturenames if name == "case" or name.endswith("_case")), "")
    if not asked:
        return
    files = sorted((HERE / "sources").glob("*.py"))
    cases = [case for path in files for case in _loaded(path, f"source_case_{path.stem}").CASES]
    cases = [case for case in cases if asked == "case" or getattr(case, asked.removesuffix("_case"))]
    if "fault" in metafunc.fixturenames:
        pairs = [(case, fault) for case in cases for fault in sorted(case.faults)]
        metafunc.parametrize((asked, "fault"), pairs, ids=[f"{case.name}-{fault}" for case, fault in pairs])
    else:
        metafunc.parametrize(asked, cases, ids=[case.name for case in cases])


class Server:
    """A redis-server of our own, with its append-only file in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.password = folder, secrets.token_hex(8)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def another(self, folder: Path) -> Server:
        return Server(folder)

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]
        command += ["--dir", str(self.folder), "--requirepass", self.password, "--daemonize", "no", "--logfile", str(self.folder / "log")]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not self.answers("PING").startswith("+PONG"):
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.01)

    def answers(self, question: str) -> str:
        """Over a plain socket: the client under test has no part in it."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as plain:
                plain.sendall(f"AUTH {self.password}\r\n{question}\r\nQUIT\r\n".encode())
                heard = b""
                while chunk := plain.recv(65536):
                    heard += chunk
                return heard.decode().removeprefix("+OK\r\n")
        except OSError:
            return ""

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(10)
            self.process = None


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory) -> Iterator[Server]:
    if shutil.which("redis-server") is None:
        assert not os.environ.get("TESTS_SKIP_NOTHING"), "redis-server is not installed"
        pytest.skip("redis-server is not installed (Debian package redis-server)")
    pytest.importorskip("redis")
    server = Server(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.end()


@pytest.fixture
def own_redis(redis_server, tmp_path) -> Iterator[Server]:
    """A second server, for tests that kill it."""
    server = Server(tmp_path)
    server.start()
    yield server
    server.end(signal.SIGKILL)


@pytest.fixture
def on_a_cluster() -> Callable[..., Any]:
    """Run `body(api, server)` beside an API server that keeps what is written: kmock's emulator, over HTTP, by the real client.

    What kmock leaves out and splits depend on is added: `resourceVersion` and 409, `generation` (changes of the spec alone), and a
    Deployment controller that has pods ready `server.looks_until_ready` reads after a change.
    """
    kmock = pytest.importorskip("kmock")
    pytest.importorskip("lightkube")

    class ClusterServer(kmock.KubernetesEmulator):
        looks_until_ready, looks, lose_answers, fail_with, before_write = 1, 0, 0, 0, None

        async def _handle(self, request: Any) -> Any:
            from aiohttp import web
            from kmock._internal.k8s import KubernetesError

            if request.method == "PATCH" and request.name is not None:
                if self.before_write is not None:
                    hook, self.before_write = self.before_write, None
                    hook(self)
                if self.fail_with:
                    status, self.fail_with = self.fail_with, 0
                    return web.json_response({"kind": "Status", "code": status, "message": "scripted"}, status=status)
                stored = self.objects[request.resource, request.namespace, request.name]
                meta, wanted = stored["metadata"], request.data.setdefault("metadata", {}).get("resourceVersion")
                if wanted is not None and wanted != meta["resourceVersion"]:
                    raise KubernetesError(status=409, reason="Conflict", message="the object has been modified")
                self.bump(request.data, stored)
                answer = await super()._handle(request)
                if self.lose_answers:
                    self.lose_answers -= 1
                    return web.json_response({"kind": "Status", "code": 504, "message": "lost on the way"}, status=504)
                return answer
            if request.method == "GET" and request.name is not None and request.resource.plural == "deployments":
                self.looks += 1
                if self.looks >= self.looks_until_ready:
                    self.roll_over(self.objects[request.resource, request.namespace, request.name])
            return await super()._handle(request)

        def bump(self, change: dict[str, Any], stored: Any) -> None:
            """Count what an API server counts."""
            meta = change.setdefault("metadata", {})
            meta["resourceVersion"] = str(int(stored["metadata"]["resourceVersion"]) + 1)
            if "spec" in change:
                meta["generation"] = stored["metadata"]["generation"] + 1
                self.looks = 0

        def roll_over(self, stored: Any) -> None:
            """What the Deployment controller says when its pods are of the newest template and ready."""
            replicas = stored["spec"]["replicas"]
            counts = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), replicas)
            stored.patch({"status": {"observedGeneration": stored["metadata"]["generation"], **counts}})

        def put(self, kind: str, name: str, spec: dict[str, Any]) -> None:
            from cryptoalpha.lifecycle.kubernetes.api import KINDS

            group, version, plural = KINDS[kind]
            meta = {"name": name, "namespace": "trading", "generation": 1, "resourceVersion": "1"}
            found = {"apiVersion": f"{group}/{version}", "kind": kind, "metadata": meta, "spec": spec}
            self.objects[kmock.resource(group, version, plural), "trading", name] = found

        def edit(self, kind: str, name: str, change: dict[str, Any]) -> None:
            """Another hand."""
            stored = self.stored(kind, name)
            self.bump(change, stored)
            stored.patch(change)

        def stored(self, kind: str, name: str) -> Any:
            from cryptoalpha.lifecycle.kubernetes.api import KINDS

            return self.objects[kmock.resource(*KINDS[kind]), "trading", name]

    def run(body: Callable[[Any, Any], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            import httpx2
            from lightkube import AsyncClient
            from lightkube.config.kubeconfig import KubeConfig
            from lightkube.config.models import Cluster, User

            from cryptoalpha.lifecycle.kubernetes.api import KubernetesApi

            async with ClusterServer() as server, kmock.Server(server) as listening:
                place, user = Cluster(server=str(listening.url).rstrip("/")), User(token="secret")
                config = KubeConfig.from_one(cluster=place, user=user, namespace="trading")
                client = AsyncClient(config=config, timeout=httpx2.Timeout(5.0), trust_env=False, field_manager="test")
                api = KubernetesApi("trading", client=client)
                try:
                    return await body(api, server)
                finally:
                    await api.close()

        return asyncio.run(main())

    return run
