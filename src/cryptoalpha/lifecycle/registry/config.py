"""[lifecycle.registry] How runs use registered models, and how many are kept."""

from __future__ import annotations

from cryptoalpha.core.config import Count, Section


class RegistryConfig(Section):
    """[lifecycle.registry] How runs use registered models, and how many are kept."""

    follow: bool = False
    """Whether `backtest` and `trade` use the champions of the registry in place of the model folders that the settings name. Off, so that
    a run uses what its settings say until somebody decides otherwise."""

    keep: Count = 10
    """Newest versions of each line, ancestors of a champion, and champions before it, that `models gc` leaves (1 or more)."""
