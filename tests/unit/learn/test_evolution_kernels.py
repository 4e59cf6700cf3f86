"""Compiled steps never outlive the noise they were compiled with: numba's cache checks the file of a function, not what it calls."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

import cryptoalpha.learn.evolution as evolution

FOLDER = Path(evolution.__file__).parent
KERNELS = sorted(path.name for path in FOLDER.glob("*.py") if "@njit" in path.read_text(encoding="utf-8"))
IMPORT = re.compile(r"^from cryptoalpha\.learn\.evolution\.(\w+) import", re.MULTILINE)


@pytest.mark.parametrize("name", KERNELS)
def test_a_changed_helper_changes_the_file_that_compiles_it(name):
    text = (FOLDER / name).read_text(encoding="utf-8")
    helpers = sorted(f"{module}.py" for module in IMPORT.findall(text))
    if helpers:
        digest = hashlib.blake2b(b"".join((FOLDER / helper).read_bytes() for helper in helpers), digest_size=6).hexdigest()
        assert f'COMPILED_WITH = "{digest}"' in text, f'write COMPILED_WITH = "{digest}" in {name}'


def test_the_kernels_that_are_looked_at():
    assert KERNELS == ["noise.py", "steps.py"]
    assert IMPORT.findall((FOLDER / "steps.py").read_text(encoding="utf-8")) == ["noise"]
    assert "from cryptoalpha.learn.evolution" not in (FOLDER / "noise.py").read_text(encoding="utf-8")
