"""Agents where the settings say: in this loop, in processes of this machine, or on a Ray cluster. Who uses them cannot tell which.

async with open_agents(sources_by_agent(config), config, start, settings.learn.runtime) as agents:
    worker = Worker(bus, inbox, agents["text"], …)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import Protocol

from cryptoalpha.core.clock import Clock
from cryptoalpha.data.bus.envelope import Envelope
from cryptoalpha.learn.config import RuntimeConfig
from cryptoalpha.learn.runtime import open_executor
from cryptoalpha.signals.agents.agent import SignalAgent
from cryptoalpha.signals.agents.hosted import HostedAgent
from cryptoalpha.signals.agents.opening import open_agent
from cryptoalpha.signals.config import SignalsConfig
from cryptoalpha.store.tables import Dataset


class Agent(Protocol):
    """What `SignalAgent` and `HostedAgent` have in common."""

    async def __call__(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """Read messages; returns the signals that became due."""
        ...

    async def due(self) -> list[Envelope]:
        """The signals that are due now."""
        ...

    async def remember(self, messages: Iterable[Envelope], *, said_until: int | None = None) -> None:
        """Take what happened before a restart."""
        ...


@asynccontextmanager
async def open_agents(
    names: Iterable[str], config: SignalsConfig, start: Dataset, runtime: RuntimeConfig, *, clock: Clock | None = None
) -> AsyncIterator[Mapping[str, Agent]]:
    """Agents by name (`opening.sources_by_agent`); they and what they live in end with the block.

    Args:
        start: what is known at the beginning; it travels to where an agent is built.

    Raises:
        ConfigError: like `open_agent` and `open_executor`.
        ModelError: if a model does not fit.
        VenueError: if the Ray cluster cannot be reached.
    """
    if runtime.backend == "local" and not runtime.processes:
        with ExitStack() as here:
            yield {name: here.enter_context(open_agent(name, config, start, clock=clock)) for name in names}
        return
    async with open_executor(runtime) as executor:
        agents = {name: HostedAgent(executor, name, partial(build_agent, name, config, start), clock=clock) for name in names}
        for agent in agents.values():
            await agent.start()
        yield agents


def build_agent(name: str, config: SignalsConfig, start: Dataset, clock: Clock) -> SignalAgent:
    """Where an agent lives: it reads its texts there, without processes of its own."""
    alone = config.model_copy(update={"agents": config.agents.model_copy(update={"workers": 0})})
    return open_agent(name, alone, start, clock=clock).__enter__()  # nothing is left to close
