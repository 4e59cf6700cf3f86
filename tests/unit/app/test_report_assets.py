"""What the report brings with it and writes: chart libraries that were tested, a script that asks nothing of the network, plain JSON."""

from __future__ import annotations

import hashlib
import re
from decimal import Decimal

import numpy as np
import pytest

from cryptoalpha.app.report.assets import LIGHTWEIGHT_CHARTS, UPLOT_SCRIPT, UPLOT_STYLE, own_asset, package_asset
from cryptoalpha.app.report.metrics import look_up, plain
from cryptoalpha.core.errors import ConfigError


def test_chart_libraries_are_the_ones_we_tested():
    for asset, expected in (
        (LIGHTWEIGHT_CHARTS, "756b0ba9f5893022"),
        (UPLOT_SCRIPT, "2d27e8ad3d228164"),
        (UPLOT_STYLE, "df630c6a8d6f8eea"),
    ):
        assert hashlib.sha256(package_asset(*asset).encode()).hexdigest()[:16] == expected


def test_a_missing_chart_library_is_named():
    with pytest.raises(ConfigError, match="no_such_package_here"):
        package_asset("no_such_package_here", "x.js")


def test_the_script_makes_no_request():
    script = own_asset("report.js")
    assert not re.search(r"fetch\(|XMLHttpRequest|WebSocket|import\(|https?:", script)


def test_what_has_no_json_form_is_refused_and_undefined_is_null():
    assert plain((float("nan"), np.float64(1.5), np.int64(3), Decimal("2.5"), None, {"a": True})) == [None, 1.5, 3, 2.5, None, {"a": True}]
    with pytest.raises(ConfigError, match="set has no JSON form"):
        plain({1, 2})
    with pytest.raises(ConfigError, match="no metric at a / b"):
        look_up({"a": {}}, ("a", "b"))
