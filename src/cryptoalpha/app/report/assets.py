"""Chart libraries and licence notices, inlined so that the report makes no request.

lightweight-charts comes from the package `litecharts`, uPlot from `youplot`; they are found on disk without importing the packages.
The page carries a content security policy that allows exactly these scripts and styles by their hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from cryptoalpha.core.errors import ConfigError

LIGHTWEIGHT_CHARTS = ("litecharts", "js/lightweight-charts.js")
UPLOT_SCRIPT = ("youplot", "vendor/uplot.iife.min.js")
UPLOT_STYLE = ("youplot", "vendor/uplot.min.css")

ATTRIBUTION_URL = "https://www.tradingview.com/"
"""The one link out of the report, asked for by the licence of lightweight-charts."""


@cache
def package_asset(package: str, path: str) -> str:
    """Text of a file inside an installed package.

    Raises:
        ConfigError: if the package or the file is not there, or the text would end its own script or style element.
    """
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        file = Path(folder) / path
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            if "</script" in text.lower() or "</style" in text.lower():
                raise ConfigError(f"{package}/{path} cannot be inlined: it closes its own element")
            return text
    raise ConfigError(f"the report needs {path} of the package {package!r}, which is not installed", hint=f"pip install {package}")


@cache
def own_asset(name: str) -> str:
    """Text of a file that lies beside this module."""
    return (files("cryptoalpha.app.report") / name).read_text(encoding="utf-8")


def content_security_policy(scripts: Iterable[str], styles: Iterable[str]) -> str:
    """Nothing may load and nothing may run but these inline scripts and styles."""
    return (
        f"default-src 'none'; script-src {_hashes(scripts)}; style-src {_hashes(styles)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hashes(texts: Iterable[str]) -> str:
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts)
