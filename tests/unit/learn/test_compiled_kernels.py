"""Compiled code never outlives its source: numba's cache checks the file of a function, not the files of what it calls."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

import cryptoalpha.learn.search as search

FOLDER = Path(search.__file__).parent
HELPERS = {
    "kernels_select.py": ["tree.py"],
    "kernels_chance.py": ["chance.py", "tree.py"],
    "reuse.py": ["tree.py"],
    "kernels.py": ["kernels_chance.py", "kernels_select.py", "tree.py"],
}


@pytest.mark.parametrize("name", HELPERS)
def test_a_changed_helper_changes_the_file_that_compiles_it(name):
    digest = hashlib.blake2b(b"".join((FOLDER / helper).read_bytes() for helper in HELPERS[name]), digest_size=6).hexdigest()
    assert f'COMPILED_WITH = "{digest}"' in (FOLDER / name).read_text(encoding="utf-8"), f'write COMPILED_WITH = "{digest}" in {name}'


def test_every_file_with_kernels_names_all_it_compiles():
    for path in FOLDER.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "@njit" in text:
            imported = set(re.findall(r"from cryptoalpha\.learn\.search\.(kernels\w*|chance|tree) import", text))
            assert {f"{module}.py" for module in imported} <= set(HELPERS.get(path.name, ())), path.name
