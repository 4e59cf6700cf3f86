"""Where a reader goes on, and what it finds lost. Pure: no clock, no I/O; both buses decide by it.

A broker may keep a group's offset while its log goes back, and may then answer with silence instead of an error, or with other messages
under the same offsets once the log has grown again. So a reader compares what it remembers with what the log holds:

1. It remembers nothing: it begins where the topic says (`earliest` | `latest`).
2. It wants to go on beyond the log's end, or the message it handled last is another one now: the log has regressed. It goes back to the
   messages that came a while (the overlap) before its last one, or to the log's start where there are none; ids tell repeats apart.
3. The log begins after where it wants to go on: retention has cut messages off. It goes on at the start.

`marks` names the messages whose ids are needed to judge, `decide` judges, `Decision.settled` turns the judgement into an offset.

Source: broker experiments described in docs/streams.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from cryptoalpha.data.bus.contract import Place, Progress, Regress

Start = Literal["earliest", "latest"]


@dataclass(frozen=True)
class Extent:
    """What a partition holds: offsets `[start, end)`."""

    start: int
    end: int


@dataclass(frozen=True)
class Decision:
    """How to go on."""

    kind: Literal["begin", "go_on", "log_regressed", "retention_gap"]
    wanted: int
    """Where the reader meant to go on."""
    following: int
    """Where it goes on, unless `since` finds a better place."""
    since: int | None = None
    """Go on at the first message that was published at this time or later, if there is one. UTC ns."""

    def settled(self, place: Place, extent: Extent, found: int | None = None) -> tuple[int, Regress | None]:
        """The offset to read next, and the loss if there was one.

        Args:
            found: the first offset at or after `since`; None: there is none, or it was not asked for.
        """
        going_on = self.following if found is None else min(max(found, extent.start), extent.end)
        if self.kind == "log_regressed" or self.kind == "retention_gap":
            return going_on, Regress(place, self.kind, self.wanted, extent.start, extent.end, going_on)
        return going_on, None


def marks(known: Collection[Progress], extent: Extent) -> frozenset[int]:
    """Offsets whose messages' ids `decide` needs."""
    return frozenset(progress.last for progress in known if _can_be_checked(progress, extent))


def decide(known: Collection[Progress], extent: Extent, ids: Mapping[int, str], *, start: Start, overlap_ns: int) -> Decision:
    """How to go on.

    Args:
        known: what is remembered of the group here: by the reader's own store, by the bus. They may differ: another member went further.
        extent: what the log holds now.
        ids: id of the message at each of `marks`; a missing one means that no message lies there any more.
        start: where a group that remembers nothing begins.
        overlap_ns: how long before its last message a reader goes back when the log has regressed.
    """
    if not known:
        offset = extent.start if start == "earliest" else extent.end
        return Decision("begin", offset, offset)
    whole = [progress for progress in known if _is_whole(progress, extent, ids)]
    proven = [progress for progress in whole if _can_be_checked(progress, extent)]
    lost = [progress for progress in known if progress not in whole]
    # An offset alone proves nothing: where another memory shows that the log was lost, only one with a matching id outweighs it.
    believed = proven if lost and proven else [] if any(progress.last_id for progress in lost) else whole
    if believed:
        following = max(progress.following for progress in believed)
        if following < extent.start:
            return Decision("retention_gap", following, extent.start)
        return Decision("go_on", following, following)
    latest = max(lost, key=lambda progress: (progress.last_time, progress.following))
    since = latest.last_time - overlap_ns if latest.last_time else None
    return Decision("log_regressed", latest.following, extent.start, since)


def _can_be_checked(progress: Progress, extent: Extent) -> bool:
    """Whether the message handled last should still lie in the log."""
    return bool(progress.last_id) and extent.start <= progress.last < extent.end


def _is_whole(progress: Progress, extent: Extent, ids: Mapping[int, str]) -> bool:
    """Whether the log is the one this was remembered of, as far as can be told."""
    if progress.following > extent.end:
        return False
    return not _can_be_checked(progress, extent) or ids.get(progress.last) == progress.last_id
