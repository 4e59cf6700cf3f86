"""A process that is watched: how much memory it and its children use, how long it has taken, and whether its parent still lives.

Memory is what is resident, added up over the process group (Linux tells by `/proc`, elsewhere nobody is told and no limit of memory holds;
pages that processes share are counted in each, so the sum errs upwards). Address space (`RLIMIT_AS`) would be the kernel's own limit, but
torch reserves several times what it uses.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

SECONDS_BETWEEN_LOOKS = 0.2


def group_memory(group: int) -> int | None:
    """Resident bytes of all processes of this group; None where the system does not say."""
    proc = Path("/proc")
    if not proc.is_dir():
        return None
    page, total = os.sysconf("SC_PAGE_SIZE"), 0
    for entry in proc.iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            fields = (entry / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
            if int(fields[2]) == group:  # state, parent, group
                total += int(fields[21]) * page
        except (OSError, ValueError, IndexError):
            continue  # it has ended meanwhile
    return total


def end_group(group: int, *, gently_seconds: float = 0.0) -> None:
    """Ask every process of a group to stop as Ctrl-C does, and end those that have not after so many seconds."""
    if gently_seconds > 0.0 and _signalled(group, signal.SIGINT):
        deadline = time.monotonic() + gently_seconds
        while time.monotonic() < deadline and group_memory(group) not in (0, None):
            time.sleep(0.05)
    _signalled(group, signal.SIGKILL)


def _signalled(group: int, number: signal.Signals) -> bool:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def end_with(parent: int) -> None:
    """End this process and its whole group when it is no longer a child of `parent`. Call it in a process that leads its group."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()
