"""The names a configuration may use: every leaf of the settings tree, and the nearest one to a name that does not exist."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

Key = tuple[str, ...]


@dataclass(frozen=True)
class Leaf:
    """One setting: where it stands, what it may hold, and whether it may ever be printed."""

    key: Key
    field: FieldInfo
    secret: bool
    structured: bool
    """Holds a list or a mapping, so its text form is parsed rather than taken as it is."""
    optional: bool
    takes_bool: bool

    @property
    def name(self) -> str:
        return ".".join(self.key)


def leaves_of(model: type[BaseModel], prefix: Key = ()) -> dict[Key, Leaf]:
    """All leaves below a model, in the order of the fields."""
    found: dict[Key, Leaf] = {}
    for name, field in model.model_fields.items():
        section = section_of(field)
        if section is not None:
            found.update(leaves_of(section, (*prefix, name)))
            continue
        kinds = set(_kinds(field.annotation))
        found[(*prefix, name)] = Leaf(
            key=(*prefix, name),
            field=field,
            secret=SecretStr in kinds,
            structured=any(
                isinstance(kind, type) and issubclass(kind, list | tuple | dict | Sequence | Mapping) for kind in kinds - {str, SecretStr}
            ),
            optional=type(None) in kinds,
            takes_bool=bool in kinds,
        )
    return found


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The section a field holds, if it holds one."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the closest valid name, also when it is right but stands in another section."""
    candidates = list(known)
    last = name.rpartition(".")[2]
    elsewhere = [other for other in candidates if other.rpartition(".")[2] == last]
    close = elsewhere or difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
    if not close:
        by_last = {other.rpartition(".")[2]: other for other in candidates}
        close = [by_last[match] for match in difflib.get_close_matches(last, by_last, n=1, cutoff=0.7)]
    return f"did you mean {close[0]}?" if close else "`cryptoalpha config show` lists all settings"


def _kinds(annotation: Any) -> Iterable[Any]:
    """The types a field accepts, without the wrappers around them: `Annotated[float, …] | None` → float, NoneType."""
    origin = get_origin(annotation)
    if origin is typing.Annotated:
        yield from _kinds(get_args(annotation)[0])
    elif origin is Union or origin is types.UnionType:
        for part in get_args(annotation):
            yield from _kinds(part)
    elif origin is typing.Literal:
        yield from (type(value) for value in get_args(annotation))
    else:
        yield origin or annotation
