"""Texts that people labelled, as every part of sentiment training sees them: repeats removed, split once and for all.

A text's split is decided by a hash of its words alone (70 % train, 15 % validation, 15 % test): the same text falls into the same split in
whatever file it stands, however many others there are, so nothing can be learned in one split and judged in another. Repeats are found by
words too: letter case, punctuation and spaces do not count. Of repeats the first stays.

Labels are read by name (`nets.text.labels`), in two, three or five classes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from duckdb import DuckDBPyConnection

from cryptoalpha.core.errors import DataError, DataMissingError
from cryptoalpha.core.time import parse_time
from cryptoalpha.data.tabular import columns_of, connect, list_tables, sha256_of
from cryptoalpha.nets.text.labels import POLARITY, SENTIMENTS, polarities

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

SPLITS = ("train", "validation", "test")
TRAIN, VALIDATION = 0.70, 0.15

TEXT_COLUMNS = ("original", "text")
LABEL_COLUMNS = ("senti_label", "label", "score")
DATE_COLUMNS = ("ts", "date", "created_at", "published_at")

MADE_BY_A_RULE = {"crypto_headlines_scored": "VADER"}
"""Sets whose labels no person gave: all 8,896 scores of this one are VADER's compound, cut at ±0.5 and at exactly 0."""

_WORD = re.compile(r"\w+")
_SCORES = dict(zip(POLARITY, SENTIMENTS, strict=True))
_PART = re.compile(r"_(train|val|valid|validation|dev|test)$")


def normalised(text: str) -> str:
    """The words of a text in small letters; a text without words stands for itself."""
    return " ".join(_WORD.findall(text.casefold())) or text.strip()


def split_of(text: str) -> int:
    """0 train, 1 validation, 2 test: by a hash of the normalised text."""
    digest = hashlib.blake2b(normalised(text).encode("utf-8", "surrogatepass"), digest_size=8, person=b"sentiment").digest()
    place = int.from_bytes(digest, "big") / 2**64
    return 0 if place < TRAIN else 1 if place < TRAIN + VALIDATION else 2


@dataclass(frozen=True, eq=False)
class LabelledSet:
    """One labelled set without repeats.

    Shapes: `texts` `n`; `label` `[n]`, the place of each text's class in `classes`; `split` `[n]`, 0 train, 1 validation, 2 test.
    """

    name: str
    texts: tuple[str, ...]
    classes: tuple[str, ...]
    polarity: tuple[float, ...]
    """Of each class, rising."""
    label: Ints
    split: Ints
    repeats: int
    """Rows left out because their words stood before."""
    newest: int | None = None
    """The latest date of its rows (UTC ns); None where they have none."""

    @property
    def made_by(self) -> str:
        """The rule that gave the labels; empty where people did."""
        return MADE_BY_A_RULE.get(self.name, "")

    @property
    def grades(self) -> Bools:
        """Which of the five sentiments each class may be, `[classes, 5]`."""
        sides, wanted = np.array(POLARITY), np.array(self.polarity)
        if np.abs(wanted[wanted != 0.0]).min() < 1.0:
            return np.asarray(np.equal.outer(wanted, sides), np.bool_)
        return np.asarray(np.equal.outer(np.sign(wanted), np.sign(sides)), np.bool_)

    def rows(self, split: int) -> Ints:
        """Places of the texts of one split."""
        return np.flatnonzero(self.split == split)

    def fingerprint(self) -> str:
        """Hash of every text with its class, in order; 16 hex digits."""
        digest = hashlib.sha256(repr((self.name, self.classes)).encode())
        for text, label in zip(self.texts, self.label.tolist(), strict=True):
            digest.update(f"{label}\0{text}\1".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:16]


def labelled_set(name: str, texts: Sequence[str], labels: Sequence[str | float]) -> LabelledSet:
    """A set from texts and the names (or scores −1, −½, 0, ½, 1) of their classes.

    Raises:
        DataError: if the two differ in number, a score is another one, or a split has no text of any class.
        ModelError: if a label's name says no side.
    """
    if len(texts) != len(labels):
        raise DataError(f"{name}: {len(texts)} texts but {len(labels)} labels")
    names = [label if isinstance(label, str) else _SCORES.get(float(label), "") for label in labels]
    if "" in names:
        raise DataError(f"{name}: score {labels[names.index('')]} of a text", hint="scores must be −1, −0.5, 0, 0.5 or 1; or write names")
    found = sorted(set(names))
    side = dict(zip(found, polarities(dict(enumerate(found)), name), strict=True)) if found else {}
    classes = sorted(found, key=lambda label: side[label])
    if len({side[label] for label in classes}) < len(classes):
        raise DataError(f"{name}: two labels mean the same: {', '.join(classes)}", hint="write them alike")
    kept: dict[str, int] = {}
    for place, text in enumerate(texts):
        if text.strip():
            kept.setdefault(normalised(text), place)
    places = list(kept.values())
    label = np.array([classes.index(names[place]) for place in places], np.int64)
    split = np.array([split_of(texts[place]) for place in places], np.int64)
    for number, part in enumerate(SPLITS):
        if len(set(label[split == number].tolist())) < len(classes):
            raise DataError(f"{name}: not every class has a text in the {part} split ({len(places)} texts)", hint="label more texts")
    return LabelledSet(
        name=name,
        texts=tuple(texts[place] for place in places),
        classes=tuple(classes),
        polarity=tuple(side[name] for name in classes),
        label=label,
        split=split,
        repeats=sum(bool(text.strip()) for text in texts) - len(places),
    )


def read_labelled(source: Path) -> tuple[list[LabelledSet], dict[str, str]]:
    """The labelled sets of a folder (or one file), and the sha256 of each file.

    Files that differ only in an ending such as `_train` or `_val` are one set: its own split is not used, ours is by hash. Texts stand in
    the column `original` or `text`, labels in `senti_label`, `label` or `score`, dates (if any; what is no date is passed over) in `ts`,
    `date`, `created_at` or `published_at`.

    Raises:
        DataMissingError: if there is no such file.
        DataError: if one cannot be read or has no such columns.
    """
    files = [source] if source.is_file() else list_tables(source)
    if not files:
        raise DataMissingError(f"no labelled texts in {source}", hint="name a folder of Parquet or CSV files with columns text and label")
    texts: dict[str, list[str]] = {}
    labels: dict[str, list[str | float]] = {}
    dates: dict[str, int] = {}
    for path in files:
        name = _PART.sub("", path.stem)
        some, their, newest = _read(path)
        if newest is not None:
            dates[name] = max(newest, dates.get(name, newest))
        texts.setdefault(name, []).extend(some)
        labels.setdefault(name, []).extend(their)
    sets = [replace(labelled_set(name, texts[name], labels[name]), newest=dates.get(name)) for name in sorted(texts)]
    return sets, {path.name: sha256_of(path) for path in files}


def _read(path: Path) -> tuple[list[str], list[str | float], int | None]:
    connection = connect()
    types = columns_of(connection, path)
    text = next((name for name in TEXT_COLUMNS if name in types), None)
    label = next((name for name in LABEL_COLUMNS if name in types), None)
    if text is None or label is None:
        raise DataError(
            f"{path} has the columns {', '.join(types)}",
            hint=f"texts are looked for in {' or '.join(TEXT_COLUMNS)}, labels in {', '.join(LABEL_COLUMNS)}",
        )
    table = "read_csv(?, header = true)" if path.suffix == ".csv" else "read_parquet(?)"
    kind = "double" if label == "score" else "varchar"
    query = f"select cast({text} as varchar), cast({label} as {kind}) from {table} where {text} is not null and {label} is not null"
    rows = connection.execute(query, [str(path)]).fetchall()
    return [row[0] for row in rows], [row[1] for row in rows], _newest(connection, path, table, types)


def _newest(connection: DuckDBPyConnection, path: Path, table: str, columns: Collection[str]) -> int | None:
    """The latest date in a file's column of dates; days and zone-less times are UTC."""
    column = next((name for name in DATE_COLUMNS if name in columns), None)
    if column is None:
        return None
    found = connection.execute(f"select cast(max(try_cast({column} as timestamp)) as varchar) from {table}", [str(path)]).fetchone()
    return parse_time(f"{found[0].replace(' ', 'T')}Z") if found and found[0] else None


def require_disjoint(sets: Sequence[LabelledSet]) -> None:
    """The leak check: no text, by its words, stands in two splits, within a set or across sets.

    Raises:
        DataError: naming the first that does.
    """
    seen: dict[str, tuple[str, int]] = {}
    for one in sets:
        for text, split in zip(one.texts, one.split.tolist(), strict=True):
            name, before = seen.setdefault(normalised(text), (one.name, split))
            if before != split:
                raise DataError(f"{text[:60]!r} stands in {SPLITS[before]} of {name} and in {SPLITS[split]} of {one.name}: a leak")
