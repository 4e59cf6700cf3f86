"""The split of a server over real HTTP, and `deploy canary|ab` against it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator

import msgspec
import pytest
from aiohttp import web

from cryptoalpha.core.errors import ConfigError, DataMissingError
from cryptoalpha.lifecycle.rollout.backends import BackendOptions, open_backend
from cryptoalpha.lifecycle.rollout.book import RolloutBook
from cryptoalpha.lifecycle.rollout.config import CanaryConfig
from cryptoalpha.lifecycle.rollout.controller import CanaryController
from cryptoalpha.lifecycle.rollout.http_split import HttpSplit
from cryptoalpha.lifecycle.rollout.router import Router
from cryptoalpha.lifecycle.rollout.split import CANARY, STABLE, SplitConflictError, SplitRefusedError, SplitUnreachableError

TOKEN = "a-token"


class Server:
    """A router behind the routes of `serve`, in a thread with a loop of its own; each look at the counts finds 300 requests more."""

    def __init__(self) -> None:
        self.canary_fails = False
        self.breaks = 0
        self.url = ""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    async def _run(self) -> None:
        self.router: Router[float] = Router(stable="old", salt="old", now=time.time_ns)
        self._end, self._loop = asyncio.Event(), asyncio.get_running_loop()
        app = web.Application()
        app.add_routes(
            [
                web.get("/v1/split", self.split), web.put("/v1/split", self.write), web.get("/v1/counts", self.counts),
                web.post("/v1/split/ensure", self.ensure), web.post("/v1/split/finish", self.finish),
            ]
        )  # fmt: skip
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        await self._end.wait()
        await runner.cleanup()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)

    @staticmethod
    def said(value: object) -> web.Response:
        return web.Response(body=msgspec.json.encode(value), content_type="application/json")

    async def body(self, request: web.Request) -> dict:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise web.HTTPUnauthorized
        return await request.json()

    async def split(self, request: web.Request) -> web.Response:
        if self.breaks:
            self.breaks -= 1
            raise web.HTTPServiceUnavailable
        return self.said(self.router.split)

    async def write(self, request: web.Request) -> web.Response:
        try:
            return self.said(await self.router.write(**await self.body(request)))
        except SplitConflictError:
            raise web.HTTPConflict from None

    async def counts(self, request: web.Request) -> web.Response:
        split, epoch = self.router.split, self.router._tally.epoch
        for number in range(300):
            bad = "error" if self.canary_fails and number % 2 == 0 else None
            if split.shadow:
                epoch.record_pair(None, bad, 0.01, 0.01)
            else:
                arm = CANARY if number < 300 * split.canary_share else STABLE
                epoch.record(arm, bad if arm == CANARY else None, 0.01)
        return self.said(await self.router.counts(int(request.query["since"])))

    async def ensure(self, request: web.Request) -> web.Response:
        body = await self.body(request)
        if body["canary"] == "unknown":
            raise web.HTTPNotFound
        return self.said(await self.router.ensure(**body))

    async def finish(self, request: web.Request) -> web.Response:
        await self.router.finish(**await self.body(request))
        return self.said({})


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def test_every_answer_of_the_server_is_the_routers_and_every_refusal_its_own_error(server):
    async def story() -> None:
        split = HttpSplit(server.url, token=TOKEN)
        ready = await split.ensure("old", "new")
        assert ready == server.router.split == await split.read()
        written = await split.write({STABLE: 0.75, CANARY: 0.25}, expected_version=ready.version)
        assert written == server.router.split
        with pytest.raises(SplitConflictError):
            await split.write({STABLE: 0.5, CANARY: 0.5}, expected_version=ready.version)
        assert (await split.counts(written.since))[CANARY].requests == 75
        with pytest.raises(SplitRefusedError, match="401"):
            await HttpSplit(server.url, token="wrong").finish(CANARY)
        with pytest.raises(DataMissingError):
            await split.ensure("old", "unknown")
        server.breaks = 1
        with pytest.raises(SplitUnreachableError, match="503"):
            await split.read()
        await split.finish(CANARY)
        assert server.router.split.stable == "new"

    asyncio.run(story())
    with pytest.raises(SplitUnreachableError, match="does not answer"):
        asyncio.run(HttpSplit("http://127.0.0.1:1").read())
    with pytest.raises(ConfigError):
        HttpSplit("127.0.0.1:8080")


def test_a_refused_token_is_no_evidence_against_the_canary(server):
    """Neither before the first stage (`ensure`), nor later (`write`): the right token goes on where the wrong one stood."""
    book, ns = RolloutBook(None), [0]

    def controller(token: str) -> CanaryController:
        config = CanaryConfig(minimum_seconds=0.0)
        return CanaryController(HttpSplit(server.url, token=token), book, config, now=lambda: ns[0], holder="one")

    async def story() -> None:
        with pytest.raises(SplitRefusedError, match="401"):
            await controller("wrong").begin("old", "new")
        for _ in range(2):
            with pytest.raises(SplitRefusedError):
                await controller("").step()
            assert controller("").state.stage == "idle"
        assert (await controller(TOKEN).step()).stage == "shadow"
        for _ in range(2):
            with pytest.raises(SplitRefusedError):
                await controller("wrong").step()  # 300 good requests: it would go on to the first step
            assert controller("").state.stage == "shadow"
            assert server.router.split.shadow
        assert (await controller(TOKEN).step()).stage == "step"
        assert [line.stage for line in book.story(1)] == ["shadow", "step"]

    asyncio.run(story())


def test_back_ends_have_names():
    from cryptoalpha.lifecycle.config import LifecycleConfig

    asked = BackendOptions(LifecycleConfig(), time.time_ns, token=TOKEN)
    assert isinstance(open_backend("inprocess", asked), HttpSplit)
    assert TOKEN not in repr(asked)
    with pytest.raises(ConfigError, match="no back end 'nginx'"):
        open_backend("nginx", asked)


QUICK = [
    *("--set", "lifecycle.canary.look_seconds=0.001", "--set", "lifecycle.canary.minimum_seconds=0"),
    *("--set", "lifecycle.canary.bake_seconds=0.01", "--json"),
]


def command(monkeypatch, capsys, home, *arguments: str) -> tuple[int, dict]:
    from cryptoalpha.app.frame import run
    from cryptoalpha.app.verbs import build

    monkeypatch.setenv("CRYPTOALPHA_HOME", str(home))
    monkeypatch.setenv("CRYPTOALPHA_CREDENTIALS__SERVING_TOKEN", TOKEN)
    monkeypatch.chdir(home)
    code = run(build(), ["deploy", *arguments])
    return code, json.loads(capsys.readouterr().out)


def test_deploy_canary_promotes_a_good_version_and_exits_6_on_a_bad_one(server, monkeypatch, capsys, tmp_path):
    code, found = command(monkeypatch, capsys, tmp_path, "canary", "--canary", "new", "--url", server.url, *QUICK)
    assert (code, found["result"]["rollout"]["stage"]) == (0, "promoted")
    assert [line["stage"] for line in found["result"]["story"]] == ["shadow", *["step"] * 5, "bake", "promoted"]
    assert server.router.split.stable == "new"
    server.canary_fails = True
    code, found = command(monkeypatch, capsys, tmp_path, "canary", "--canary", "worse", "--url", server.url, *QUICK)
    assert (code, found["result"]["rollout"]["stage"]) == (6, "rolled_back")
    assert "fails more often than stable" in found["error"]["message"]
    assert server.router.split.stable == "new"
    code, found = command(monkeypatch, capsys, tmp_path, "canary", "--status", "--json")
    assert (code, found["result"]["rollout"]["id"]) == (0, 2)


def test_deploy_canary_goes_look_by_look_and_is_aborted_by_hand(server, monkeypatch, capsys, tmp_path):
    slow = ["--set", "lifecycle.canary.minimum_seconds=1000", "--url", server.url, "--json"]
    assert command(monkeypatch, capsys, tmp_path, "canary", "--canary", "new", "--once", *slow)[0] == 0
    code, found = command(monkeypatch, capsys, tmp_path, "canary", "--once", *slow)
    assert (code, found["result"]["rollout"]["stage"]) == (0, "shadow")
    code, found = command(monkeypatch, capsys, tmp_path, "canary", "--abort", "not today", *slow)
    assert (code, found["result"]["rollout"]["reason"]) == (0, "by hand: not today")
    assert command(monkeypatch, capsys, tmp_path, "canary", "--abort", "a", "--status", "--json")[0] == 2


def test_deploy_canary_refuses_to_wait_for_labels_and_names_the_step_after_a_promotion(server, monkeypatch, capsys, tmp_path):
    from cryptoalpha.app.frame import run
    from cryptoalpha.app.verbs import build

    asked = ("canary", "--canary", "new", "--url", server.url, *QUICK)
    code, found = command(monkeypatch, capsys, tmp_path, *asked, "--set", "lifecycle.canary.quality=require")
    assert (code, "no labels reach" in found["error"]["message"], server.router.split.canary) == (2, True, "")
    assert run(build(), ["deploy", *asked]) == 0
    assert "cryptoalpha models promote new --reason" in capsys.readouterr().err


def test_deploy_ab_compares_counts_and_outcomes_by_key(server, monkeypatch, capsys, tmp_path):
    async def divided() -> None:
        split = HttpSplit(server.url, token=TOKEN)
        ready = await split.ensure("old", "new")
        await split.write({STABLE: 0.5, CANARY: 0.5}, expected_version=ready.version)

    asyncio.run(divided())
    server.canary_fails = True
    rows = [f"k{number},{0.8 if server.router.assign(f'k{number}') == CANARY else 0.4}" for number in range(2000)]
    (tmp_path / "hits.csv").write_text("key,value\n" + "\n".join(rows) + "\n")
    asked = ("ab", "--url", server.url, "--outcomes", str(tmp_path / "hits.csv"), "--lowest", "0", "--highest", "1", "--json")
    code, found = command(monkeypatch, capsys, tmp_path, *asked)  # the server says the salt
    assert code == 0
    verdicts = {one["measure"]: (one["verdict"], round(one["difference"], 6)) for one in found["result"]["measures"]}
    assert verdicts == {"failed requests": ("worse", 0.5), "late answers": ("open", 0.0), "hits": ("better", 0.4)}
    code, found = command(monkeypatch, capsys, tmp_path, *asked, "--salt", "another")
    assert abs(found["result"]["measures"][-1]["difference"]) < 0.05  # noise: other keys
    server.router.salt = ""
    asyncio.run(divided())
    code, found = command(monkeypatch, capsys, tmp_path, *asked)
    assert (code, "GET /v1/split" in found["error"]["hint"]) == (2, True)
    assert command(monkeypatch, capsys, tmp_path, "ab", "--url", server.url, "--lowest", "0", "--json")[0] == 2


def test_no_step_is_left_while_a_kill_stands(server, monkeypatch, capsys, tmp_path):
    from cryptoalpha.app.rolling_out import any_kill
    from cryptoalpha.store.controls import request_control
    from cryptoalpha.store.journal import Journal

    assert not any_kill(tmp_path)
    with Journal(tmp_path / "journal.sqlite", durable=True, header={"mode": "paper"}):
        pass
    assert not any_kill(tmp_path)
    request_control(tmp_path / "journal.sqlite", "kill", by="test", reason="a test", at=time.time_ns())
    assert any_kill(tmp_path)
    command(monkeypatch, capsys, tmp_path, "canary", "--canary", "new", "--once", "--url", server.url, *QUICK)
    code, found = command(monkeypatch, capsys, tmp_path, "canary", "--once", "--url", server.url, *QUICK)
    assert (code, found["result"]["rollout"]["stage"]) == (0, "shadow")
    assert found["result"]["rollout"]["reason"] == "waits for guards: no kill stands"
