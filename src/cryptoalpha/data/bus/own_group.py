"""Names of groups that belong to one home.

Homes may share a broker. Two that joined one group would share out its partitions, and each would see half; so a group's name carries an
identity of the home, drawn once and kept in a file of its folder.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from cryptoalpha.core.errors import StoreError

FILE = "identity"


def own_group(folder: Path, name: str) -> str:
    """`name@identity`, the same for as long as the folder stands.

    Args:
        folder: where the home keeps its streams; made if it is not there.

    Raises:
        StoreError: if the identity can neither be read nor written.
    """
    path = folder / FILE
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            _draw(path)
        identity = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"the identity {path} of this home cannot be used: {error}", hint="choose a writable folder") from error
    if not identity:
        raise StoreError(f"the identity {path} of this home is empty", hint="delete it and the inboxes beside it: groups then begin anew")
    return f"{name}@{identity}"


def _draw(path: Path) -> None:
    """Write a new identity, whole or not at all; where another process was quicker, its own stays."""
    draft = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with draft.open("x") as file:
            file.write(uuid4().hex[:12])
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
