"""What this process takes from its machine. Linux tells by files; elsewhere the answer is None, and no metric is given."""

from __future__ import annotations

import os
from pathlib import Path

_CONTROL_GROUPS = Path("/sys/fs/cgroup")


def memory_used() -> int | None:
    """Bytes of memory in use (resident), None where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def memory_allowed() -> int | None:
    """Bytes this process may use: the smallest of what its control groups and the machine allow; None where the system does not say."""
    limits = [int(text) for path in _limit_files() if (text := _text(path)).isdecimal()]
    try:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError):
        return min(limits, default=None)
    return min(limits)


def _limit_files() -> list[Path]:
    """Where control groups (version 2, then 1) keep the limits of this process and of the groups around it."""
    own = next((line[3:].lstrip("/") for line in _text(Path("/proc/self/cgroup")).splitlines() if line.startswith("0::")), "")
    around = [_CONTROL_GROUPS / own, *(parent for parent in (_CONTROL_GROUPS / own).parents if parent.is_relative_to(_CONTROL_GROUPS))]
    return [*(group / "memory.max" for group in around), _CONTROL_GROUPS / "memory" / "memory.limit_in_bytes"]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
