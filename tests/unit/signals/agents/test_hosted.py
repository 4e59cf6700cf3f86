"""An agent that lives elsewhere says what the same agent says here, whatever dies in between, and however often it is called."""

from __future__ import annotations

import asyncio
import functools
import importlib
import os
import signal
from pathlib import Path

import pytest

from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.errors import DataError
from cryptoalpha.core.time import SECOND
from cryptoalpha.learn.config import RuntimeConfig
from cryptoalpha.learn.runtime import open_executor
from cryptoalpha.signals.agents import hosted
from cryptoalpha.signals.agents.agent import SignalAgent
from cryptoalpha.signals.agents.anywhere import open_agents
from cryptoalpha.signals.agents.hosted import HostedAgent
from cryptoalpha.signals.agents.opening import sources_by_agent
from cryptoalpha.signals.config import SignalsConfig

PROCESSES = Path(__file__).resolve().parents[3] / "processes"
IN_PROCESSES = RuntimeConfig(processes=True, restart_seconds=0.01)


@pytest.fixture
def agents(monkeypatch):
    monkeypatch.syspath_prepend(PROCESSES)
    return importlib.import_module("runtime_agents")


def calls(agents):
    """(moment, messages): each hour cut in three, then a look when the bar has settled, and one for nothing."""
    for end, messages in agents.hours():
        third = -(-len(messages) // 3)
        for first in range(0, len(messages), third):
            yield end, messages[first : first + third]
        yield end + 5 * SECOND, []
        yield end + 6 * SECOND, []


async def told(agent, clock, coming):
    said = []
    for moment, messages in coming:
        clock.advance_to(moment)
        said += await agent(messages) if messages else await agent.due()
    return said


def here(agents, kind):
    clock = VirtualClock(agents.since())
    return asyncio.run(told(agents.agent(kind, clock), clock, calls(agents)))


def there(agents, kind, config, talk, **options):
    """What `talk(hosted agent, clock, executor)` returns."""

    async def run():
        clock = VirtualClock(agents.since())
        fatal = options.pop("fatal", "")
        async with open_executor(config) as executor:
            agent = HostedAgent(executor, kind, functools.partial(agents.mortal, kind, fatal), clock=clock, **options)
            return await talk(agent, clock, executor)

    return asyncio.run(run())


@pytest.mark.parametrize("kind", ["texts", "prices", "chain", "all"])
def test_an_agent_in_a_thread_says_what_it_says_here(agents, kind):
    expected = here(agents, kind)
    assert len(expected) >= 12  # at least one signal per bar
    assert there(agents, kind, RuntimeConfig(), lambda agent, clock, _: told(agent, clock, calls(agents))) == expected


@pytest.mark.slow
@pytest.mark.parametrize("cut", [1, 10, 29])
def test_an_agent_that_is_killed_at_work_and_at_rest_has_said_the_same_in_the_end(agents, tmp_path, monkeypatch, cut):
    monkeypatch.setattr(hosted, "RECALLED_AT_ONCE", 50)

    async def talk(agent, clock, executor):
        coming = list(calls(agents))
        said = await told(agent, clock, coming[:cut])
        (tmp_path / "die").touch()
        said += await told(agent, clock, coming[cut : cut + 2])
        assert not (tmp_path / "die").exists()
        (health,) = await executor.health()
        os.kill(health.process, signal.SIGKILL)
        said += await told(agent, clock, coming[cut + 2 :])
        (health,) = await executor.health()
        return said, health.restarts, agent.recalls

    assert there(agents, "all", IN_PROCESSES, talk, fatal=str(tmp_path / "die")) == (here(agents, "all"), 2, 2)


@pytest.mark.parametrize(
    "config", [RuntimeConfig(), pytest.param(IN_PROCESSES, marks=pytest.mark.slow, id="and dies after it")], ids=["in a thread", None]
)
def test_what_happened_before_a_restart_is_remembered_as_here(agents, monkeypatch, config):
    """Half a day later with another process: the rest is what the agent says that was there all along."""
    monkeypatch.setattr(hosted, "RECALLED_AT_ONCE", 50)
    cut = 10

    async def first(agent, clock, executor):
        return await told(agent, clock, list(calls(agents))[:cut])

    async def second(agent, clock, executor):
        coming = list(calls(agents))
        clock.advance_to(coming[cut - 1][0])
        await agent.remember([message for _, messages in reversed(coming[:cut]) for message in messages])
        if config.processes:
            (health,) = await executor.health()
            os.kill(health.process, signal.SIGKILL)
        return await told(agent, clock, coming[cut:])

    before = there(agents, "all", RuntimeConfig(), first)
    assert before
    assert before + there(agents, "all", config, second) == here(agents, "all")


def test_a_call_that_was_cancelled_is_recalled_from_without_losing_what_it_had_made_due(agents):
    async def talk(agent, clock, executor):
        coming = list(calls(agents))
        said = await told(agent, clock, coming[:3])
        asked = executor.call

        async def cancelled(*arguments, **options):
            answer = await asked(*arguments, **options)
            assert answer.outputs  # the first bar's, which nobody will ever see
            raise asyncio.CancelledError

        executor.call = cancelled
        clock.advance_to(coming[3][0])
        with pytest.raises(asyncio.CancelledError):
            await agent.due()
        executor.call = asked
        return said + await told(agent, clock, coming[3:])

    assert there(agents, "all", RuntimeConfig(), talk) == here(agents, "all")


def test_a_message_that_cannot_be_read_fails_here_and_is_recalled_as_a_failure(agents):
    async def talk(agent, clock, executor):
        coming = list(calls(agents))
        said = await told(agent, clock, coming[:2])
        good = coming[2][1][-1]
        bad = type(good)(
            id="x/bad", topic=good.topic, key=good.key, source="x", kind="Bar", schema=1, event_time=1, observed_time=1, payload=b"\xc1"
        )
        with pytest.raises(DataError, match="x/bad"):
            await agent([good, bad])
        await agent.stop()  # a new one must be told of the failure too, or it would not know the good one
        said += await told(agent, clock, coming[2:])
        return said, agent.recalls

    assert there(agents, "all", RuntimeConfig(), talk) == (here(agents, "all"), 1)


def test_calls_that_change_nothing_are_not_kept_and_what_is_kept_is_bounded(agents):
    async def talk(agent, clock, _):
        await told(agent, clock, calls(agents))
        return len(agent._calls), agent._kept, agent.fallen_out

    looks = sum(not messages for _, messages in calls(agents))
    asked = sum(bool(messages) for _, messages in calls(agents))
    total = sum(len(messages) for _, messages in calls(agents))
    kept, messages, fallen = there(agents, "all", RuntimeConfig(), talk)
    assert asked < kept <= asked + looks // 2  # every second look found nothing new
    assert (messages, fallen) == (total, 0)
    kept, messages, fallen = there(agents, "all", RuntimeConfig(), talk, recalled_messages=60)
    assert messages <= 60
    assert messages + fallen == total


def test_what_agents_pass_over_does_not_travel(agents, monkeypatch):
    clock = VirtualClock(agents.since())
    seen = []
    end, messages = agents.hours()[0]
    foreign = type(messages[0])(
        id="y/1", topic="market", key="y", source="y", kind="Trade", schema=1, event_time=end, observed_time=end, payload=b""
    )

    class Executor:
        async def spawn(self, name, build, *, resources=None):
            seen.append(name)

        async def call(self, name, task, item, *, call_id=""):
            seen.append([envelope.id for envelope in item[2]])
            return hosted.Said(0, [])

    agent = HostedAgent(Executor(), "a", functools.partial(agents.mortal, "all", ""), clock=clock)
    asyncio.run(agent([foreign, messages[0]]))
    assert seen == ["a", [messages[0].id]]


@pytest.mark.slow
def test_settings_choose_where_agents_live_and_nothing_else_changes(agents):
    start = agents.market().known_until(agents.since())
    config = SignalsConfig(sources=("news_tone", "volatility", "funding"), keep_features=False, news=agents.NEWS)

    async def told_by_all(runtime):
        clock = VirtualClock(agents.since())
        async with open_agents(sources_by_agent(config), config, start, runtime, clock=clock) as opened:
            said = {name: [] for name in opened}
            for moment, messages in calls(agents):
                clock.advance_to(moment)
                for name, agent in opened.items():
                    said[name] += await agent(messages) if messages else await agent.due()
        return {name: type(agent) for name, agent in opened.items()}, said

    here, expected = asyncio.run(told_by_all(RuntimeConfig()))
    there, said = asyncio.run(told_by_all(IN_PROCESSES))
    assert set(here) == {"text", "price", "chain"}
    assert (set(here.values()), set(there.values())) == ({SignalAgent}, {HostedAgent})
    assert said == expected
    assert min(len(outputs) for outputs in said.values()) >= 24
