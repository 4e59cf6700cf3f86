"""The fake publisher of the sources' own tests, for the contract they all pass."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

_PLACE = Path(__file__).resolve().parents[1] / "unit" / "data" / "sources" / "conftest.py"
_SPEC = spec_from_file_location("sources_conftest", _PLACE)
assert _SPEC is not None
assert _SPEC.loader is not None
_MODULE = module_from_spec(_SPEC)
sys.modules[_SPEC.name] = _MODULE  # dataclasses look their module up
_SPEC.loader.exec_module(_MODULE)

publisher, virtual_time, as_publishers_do = _MODULE.publisher, _MODULE.virtual_time, _MODULE.as_publishers_do
