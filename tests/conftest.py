"""What every test may ask for: where evaluation data lies, if anywhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def market_data() -> Path:
    """A directory of real market history (`CRYPTOALPHA_TEST_DATA`, else `../shared/data/market`); tests that need it skip without it."""
    root = Path(os.environ.get("CRYPTOALPHA_TEST_DATA", REPOSITORY.parent / "shared" / "data" / "market"))
    if not root.is_dir():
        pytest.skip(f"no evaluation data at {root}: set CRYPTOALPHA_TEST_DATA to a directory of market history")
    return root


@pytest.fixture(scope="session")
def payloads() -> Path:
    """A directory of recorded exchange messages (`../shared/data/payloads`); tests that need it skip without it."""
    root = REPOSITORY.parent / "shared" / "data" / "payloads"
    if not root.is_dir():
        pytest.skip(f"no recorded payloads at {root}")
    return root
