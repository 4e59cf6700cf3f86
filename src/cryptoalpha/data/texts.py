"""Texts from files: when each counts as known, and which are repeats.

A text with a time is known an embargo after it; a text with only a date (a stamp of exactly 00:00:00, or a file of dates) is known an
embargo after the day has ended. Of equal texts, in whatever file, the one known first stays: a decision that only looks back, so a later
copy never removes an earlier row. Scores that came with the texts are somebody's model and are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cryptoalpha.core.time import DAY
from cryptoalpha.data.tabular import RawTable, Texts
from cryptoalpha.store.tables import PostTable, Times


@dataclass(frozen=True, eq=False)
class TextFile:
    """One file of texts and the source its rows belong to. `raw.texts` holds `text` and, where the file has them, `title`."""

    source: str
    raw: RawTable
    date_only: bool = False


@dataclass(frozen=True)
class TextCount:
    """What became of the rows of one file: `rows` = `kept` + `repeats` + `empty`; `dated` of them were treated as date-only."""

    name: str
    rows: int
    kept: int
    repeats: int
    empty: int
    dated: int

    def __str__(self) -> str:
        return f"{self.name}: {self.rows} texts, {self.kept} kept, {self.repeats} repeats, {self.empty} empty, {self.dated} date-only"


def known_at(stamp: Times, *, date_only: bool, embargo: int) -> tuple[Times, npt.NDArray[np.bool_]]:
    """When each text counts as known, and which rows carry only a date."""
    dated = np.full(stamp.shape, True) if date_only else stamp % DAY == 0
    moment = np.where(dated, stamp // DAY * DAY + DAY, stamp) + embargo
    return moment.astype(np.int64), dated


def build_posts(files: Sequence[TextFile], *, embargo: int) -> tuple[dict[str, PostTable], list[TextCount]]:
    """One table per source, repeats removed across all files, and a count per file."""
    moments, flags = (
        zip(*(known_at(f.raw.stamp, date_only=f.date_only, embargo=embargo) for f in files), strict=True) if files else ((), ())
    )
    kept = _first_of_equal_texts(files, moments)
    counts = [
        TextCount(
            file.raw.path.stem,
            len(file.raw),
            int((kept[i] == 1).sum()),
            int((kept[i] == 0).sum()),
            int((kept[i] == -1).sum()),
            int(flags[i].sum()),
        )
        for i, file in enumerate(files)
    ]
    posts: dict[str, PostTable] = {}
    for source in sorted({file.source for file in files}):
        mine = [(file, moments[i], np.flatnonzero(kept[i] == 1)) for i, file in enumerate(files) if file.source == source]
        posts[source] = _table(source, mine)
    return posts, counts


def _first_of_equal_texts(files: Sequence[TextFile], moments: Sequence[Times]) -> list[npt.NDArray[np.int8]]:
    """For each row of each file: 1 kept, 0 a repeat of a text known no later, −1 empty."""
    verdicts = [np.zeros(len(file.raw), np.int8) for file in files]
    if not files:
        return verdicts
    which = np.concatenate([np.full(len(file.raw), i) for i, file in enumerate(files)])
    row = np.concatenate([np.arange(len(file.raw)) for file in files])
    order = np.lexsort((row, which, np.concatenate(moments)))  # ties go to the first file, then the first row
    bodies = [file.raw.texts["text"] for file in files]
    titles = [file.raw.texts.get("title") for file in files]
    seen: set[str] = set()
    for i, r in zip(which[order].tolist(), row[order].tolist(), strict=True):
        title = titles[i]
        body = " ".join((bodies[i][r] or (title[r] if title is not None else "")).split())
        if not body:
            verdicts[i][r] = -1
        elif body not in seen:
            seen.add(body)
            verdicts[i][r] = 1
    return verdicts


def _wording(raw: RawTable, rows: Times) -> Texts:
    """What a reader saw: the title, where there is one, and the text."""
    body = raw.texts["text"][rows]
    if "title" not in raw.texts:
        return body
    words = [
        ". ".join(part for part in (title.strip(), text.strip()) if part)
        for title, text in zip(raw.texts["title"][rows], body, strict=True)
    ]
    return np.array(words, object)


def _table(source: str, parts: Sequence[tuple[TextFile, Times, Times]]) -> PostTable:
    """Rows of several files as one table, in the order they became known."""
    known = np.concatenate([moment[rows] for _, moment, rows in parts])
    row = np.concatenate([rows for _, _, rows in parts])
    order = np.lexsort((row, known))
    partition = np.concatenate([np.full(len(rows), file.raw.partition, "U16") for file, _, rows in parts])[order]
    row = row[order]
    return PostTable(
        source=source,
        happened_at=np.concatenate([file.raw.stamp[rows] for file, _, rows in parts])[order],
        known_at=known[order],
        text=np.concatenate([_wording(file.raw, rows) for file, _, rows in parts])[order],
        post_id=np.array([f"{p}:{r}" for p, r in zip(partition.tolist(), row.tolist(), strict=True)], object),
        partition=partition,
        row=row,
    )
