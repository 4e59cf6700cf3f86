"""Tables put end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cryptoalpha.store.tables import BarTable


def join_bars(tables: Sequence[BarTable]) -> BarTable:
    """Bars of one instrument and length, one table after the other; the order within stays."""
    columns: dict[str, Any] = {name: np.concatenate([getattr(table, name) for table in tables]) for name in BarTable.columns()}
    return replace(tables[0], **columns)
