"""Which network took over when: kept on disk, so that a run that is started again or replayed takes over at the same bar.

    PLACE/adoptions.jsonl     one line per adoption: the bar's moment (UTC ns), its journal row, the network's SHA-256, why
    PLACE/DIGEST.onnx         the network

The network is written first and the line after it, both to the disk before the network acts: a line always names a network that is whole.
A line cut off by a crash is the last one and is forgotten, as the adoption that it speaks of never acted.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptoalpha.core.errors import DataMissingError, ModelError, StoreError
from cryptoalpha.core.time import iso
from cryptoalpha.store.whole_file import write_whole

TABLE = "adoptions.jsonl"


@dataclass(frozen=True)
class Adoption:
    """One take-over. `at`: the bar after which it acts, UTC ns; `row`: that bar's first journal row; `lesson`: the one that proposed it."""

    at: int
    row: int
    version: str
    words: str
    lesson: int = -1


class Adoptions:
    """The table and its networks, at one place.

    Args:
        place: a folder, made when something is adopted; None keeps everything in memory (a backtest that nobody resumes).

    Raises:
        StoreError: if the table is damaged other than by a cut at its end.
    """

    def __init__(self, place: Path | None) -> None:
        self.place = place
        self._graphs: dict[str, bytes] = {}
        self.rows: list[Adoption] = [] if place is None else _read(place / TABLE)

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, moment: int) -> Adoption | None:
        """What took over after the bar known at `moment`."""
        return next((row for row in self.rows if row.at == moment), None)

    def newest(self, by: int) -> Adoption | None:
        """What is in charge after the bar known at `by`."""
        past = [row for row in self.rows if row.at <= by]
        return past[-1] if past else None

    def add(self, adoption: Adoption, graph: bytes) -> None:
        """Write it down; it may act when this returns.

        Raises:
            ModelError: if the graph is not the one that is named.
            StoreError: if it is no later than the last one, or the disk refuses.
        """
        if hashlib.sha256(graph).hexdigest() != adoption.version:
            raise ModelError(f"the network to adopt is not {adoption.version[:12]}…")
        if self.rows and adoption.at <= self.rows[-1].at:
            raise StoreError(
                f"a network is adopted at {iso(adoption.at)}, after one was at {iso(self.rows[-1].at)}: time goes forward only"
            )
        if self.place is None:
            self._graphs[adoption.version] = graph
        else:
            write_whole(self.place / f"{adoption.version}.onnx", graph)
            _append(self.place / TABLE, json.dumps(asdict(adoption), sort_keys=True) + "\n")
        self.rows.append(adoption)

    def graph(self, version: str) -> bytes:
        """The network of that version.

        Raises:
            DataMissingError: if it is gone.
            ModelError: if it is another one.
        """
        if self.place is None:
            return self._graphs[version]
        path = self.place / f"{version}.onnx"
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise DataMissingError(f"the network that was adopted is gone: {path}", hint="restore it from a copy of the run") from None
        if hashlib.sha256(data).hexdigest() != version:
            raise ModelError(f"{path} is not the network that was adopted: its SHA-256 differs", hint="restore it from a copy of the run")
        return data


def _read(path: Path) -> list[Adoption]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    lines = text.split("\n")
    whole, cut = lines[:-1], lines[-1]
    if cut:  # a crash while the line was written; what follows must not be glued to it
        write_whole(path, "".join(f"{line}\n" for line in whole))
    try:
        return [Adoption(**json.loads(line)) for line in whole]
    except (ValueError, TypeError) as error:
        raise StoreError(f"{path} is damaged: {error}", hint="restore it from a copy of the run") from error


def _append(path: Path, line: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}", hint="is the disk full or read-only?") from error
