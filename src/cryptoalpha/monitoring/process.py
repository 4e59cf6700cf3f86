"""What this process takes from its machine, and what is left there; None, and then no metric, where the system does not say."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NamedTuple

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


class DiskRoom(NamedTuple):
    """A disk as this process may use it. `free` leaves out what is kept for root; both in bytes."""

    used: int
    free: int

    @property
    def used_share(self) -> float:
        """As `df` shows it: used of what is used and free."""
        return self.used / (self.used + self.free) if self.used + self.free else 1.0


def disk_room(path: Path) -> DiskRoom | None:
    """The disk that holds `path`, or would: that of the nearest folder there is; None where the system does not say."""
    place = next((each for each in (path, *path.absolute().parents) if each.exists()), None)
    try:
        found = shutil.disk_usage(place) if place is not None else None
    except OSError:
        return None
    return None if found is None else DiskRoom(found.used, found.free)


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
