"""How the members of a group in one process share out partitions, and how one is handed over without being read by two at once.

A member that is to lose a partition keeps it until what it has in hand there is done: it asks for more, commits, or leaves. Only one that
does neither for too long is passed over; what it then commits for that partition is ignored.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Generic, TypeVar

from cryptoalpha.data.bus.contract import Place

Member = TypeVar("Member")


def shares(members: Mapping[Member, Collection[str]], places: Collection[Place]) -> dict[Place, Member]:
    """Who is to read what: each topic's partitions in turn over those who want the topic, in the order they joined."""
    wanted = {}
    for topic in sorted({place.topic for place in places}):
        readers = [member for member, topics in members.items() if topic in topics]
        for index, place in enumerate(sorted(place for place in places if place.topic == topic)):
            if readers:
                wanted[place] = readers[index % len(readers)]
    return wanted


class Sharing(Generic[Member]):
    """Who reads what in one group.

    Args:
        release_seconds: how long a member may keep a partition it is to lose.
    """

    def __init__(self, release_seconds: float) -> None:
        self._release_seconds = release_seconds
        self._topics: dict[Member, frozenset[str]] = {}
        self._places: set[Place] = set()
        self._owner: dict[Place, Member] = {}
        self._wanted: dict[Place, Member] = {}
        self._deadline: dict[Place, float] = {}
        self._turns: dict[Place, int] = {}

    @property
    def members(self) -> list[Member]:
        return list(self._topics)

    def owned(self, member: Member) -> list[Place]:
        """What a member may read now."""
        return [place for place, owner in self._owner.items() if owner is member]

    def turn(self, place: Place) -> int:
        """How often a partition has changed hands: who gets it back finds that others may have read on."""
        return self._turns.get(place, 0)

    def owns(self, member: Member, place: Place) -> bool:
        return self._owner.get(place) is member

    def join(self, member: Member, topics: Collection[str], places: Collection[Place], now: float) -> None:
        """A member comes; partitions that are free are its own at once."""
        self._topics[member] = frozenset(topics)
        self._places.update(places)
        self._share(now)

    def leave(self, member: Member, now: float) -> None:
        """A member goes, and lets go of everything."""
        self._topics.pop(member, None)
        self._owner = {place: owner for place, owner in self._owner.items() if owner is not member}
        self._share(now)

    def release(self, member: Member, now: float) -> bool:
        """A member has nothing in hand: what it is to lose is handed over, and so is what others held too long. Whether anything was."""
        moved = False
        for place, deadline in list(self._deadline.items()):
            if self._owner.get(place) is member or now >= deadline:
                self._give(place)
                moved = True
        return moved

    def _share(self, now: float) -> None:
        self._wanted = shares(self._topics, self._places)
        self._deadline = {place: deadline for place, deadline in self._deadline.items() if place in self._wanted}
        for place, member in self._wanted.items():
            owner = self._owner.get(place)
            if owner is None or owner is member:
                self._give(place)
            else:
                self._deadline.setdefault(place, now + self._release_seconds)

    def _give(self, place: Place) -> None:
        self._deadline.pop(place, None)
        if self._owner.get(place) is not self._wanted[place]:
            self._owner[place] = self._wanted[place]
            self._turns[place] = self.turn(place) + 1
