"""Files that other people recorded: what came over sockets and HTTP, line by line.

Two formats of one recorder (cryptofeed's):
- sockets: `ADDRESS <-> EPOCH` opens a connection, `ADDRESS <- EPOCH: TEXT` is what was sent, `EPOCH: TEXT` what came;
- HTTP: `ADDRESS -> EPOCH: TEXT` is an answer.
And one of hftbacktest's: `NANOSECONDS TEXT`, perhaps compressed. Epochs are decimal seconds by the recorder's clock.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptoalpha.core.errors import DataError
from cryptoalpha.data.sources.venues.reading import seconds

Way = Literal["opened", "sent", "came", "answered"]
_LINE = re.compile(rb"(?:(?P<address>\S+) (?P<way><->|<-|->) )?(?P<epoch>\d+(?:\.\d+)?)(?:: (?P<text>.*))?", re.DOTALL)
_STAMPED = re.compile(rb"(?P<moment>\d{19}) (?P<text>.*)", re.DOTALL)
_WAYS: dict[bytes, Way] = {b"<->": "opened", b"<-": "sent", b"->": "answered"}


@dataclass(frozen=True, slots=True)
class Recorded:
    """One line of a recording."""

    received_at: int
    """UTC ns by the recorder's clock."""
    raw: bytes
    way: Way = "came"
    address: str = ""
    """Where it was asked, of an answer; which socket, of what was opened or sent."""

    @property
    def subject(self) -> str:
        """The venue's symbol that an answer is about, as its address says: `symbol=BTCUSDT`, or the last part of its path."""
        found = re.search(r"[?&](?:symbol|instId|pair)=([^&]+)", self.address)
        return found[1] if found else self.address.partition("?")[0].rstrip("/").rpartition("/")[2]


def recorded(path: Path) -> Iterator[Recorded]:
    """The lines of a recording, in their order; empty ones and the recorder's own configuration are passed over.

    Raises:
        DataError: if a line is of neither format.
    """
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            line = line.rstrip(b"\r\n")
            if not line.strip() or line.startswith(b"configuration: "):
                continue
            if stamped := _STAMPED.fullmatch(line):
                yield Recorded(int(stamped["moment"]), stamped["text"])
            elif (match := _LINE.fullmatch(line)) and (match["way"] == b"<->" or match["text"] is not None):
                moment = seconds(match["epoch"].decode(), f"line {number} of {path.name}")
                way = _WAYS[match["way"]] if match["way"] else "came"
                yield Recorded(moment, match["text"] or b"", way, (match["address"] or b"").decode(errors="replace"))
            else:
                raise DataError(f"line {number} of {path.name} is no recording: {line[:60].decode(errors='replace')!r}")
