"""Settings of the loop itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cryptoalpha.core.config import Positive, Section


class EngineConfig(Section):
    """[engine] The loop: collect, weigh, decide, check, execute, write down."""

    mode: Literal["paper", "live"] = "paper"
    """`paper` fills orders in a simulation. `live` sends them, and also needs `execution.allow_live`, `trade --live`, CRYPTOALPHA_LIVE=1
    and keys that cannot withdraw."""

    auto_trading: bool = False
    """Whether decisions become orders. Off, every decision is journaled and nothing is sent: nobody trades by accident."""

    interval_seconds: Positive = 1.0
    """How often a live loop looks for new data, seconds. Decisions fall on closed bars; a second keeps the wait after a close short."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every random stream of a run; the same seed on the same data gives the same journal."""
