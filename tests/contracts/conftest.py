"""What contracts are held against: the fake publisher of the sources' own tests, and a real Redis server."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

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
