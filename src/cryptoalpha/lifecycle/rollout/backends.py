"""Back ends of a traffic split by name, imported only when one is opened.

`inprocess` is the router inside a running `serve`, reached over HTTP. The others name the extra they need if its package is missing; a
module of `MODULES` has `open_split(asked: BackendOptions) -> TrafficSplit`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.lifecycle.rollout.http_split import HttpSplit
from cryptoalpha.lifecycle.rollout.split import TrafficSplit

if TYPE_CHECKING:
    from cryptoalpha.lifecycle.config import LifecycleConfig

MODULES = {"rayserve": "cryptoalpha.lifecycle.rollout.ray_serve"}
BACKENDS = ("inprocess", "httproute", "argo", *MODULES)


@dataclass(frozen=True)
class BackendOptions:
    """What a back end is opened with.

    Args:
        lifecycle: settings; a back end takes its own section.
        now: UTC ns.
        url: of `serve`, for what is reached over HTTP.
        token: bearer token for changing what `serve` answers with.
    """

    lifecycle: LifecycleConfig
    now: Callable[[], int]
    url: str = "http://127.0.0.1:8100"
    token: str = field(default="", repr=False)


def open_backend(name: str, asked: BackendOptions) -> TrafficSplit:
    """The back end of that name.

    Raises:
        ConfigError: if there is none, a package is missing, or its settings do not fit.
    """
    if name not in BACKENDS:
        raise ConfigError(f"no back end {name!r}", hint=f"there are: {', '.join(BACKENDS)}")
    if name == "inprocess":
        return HttpSplit(asked.url, token=asked.token)
    try:
        return _elsewhere(name, asked)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the back end {name} needs {error.name}, which is not installed", hint="docs/rollout.md names the extras"
        ) from error


def _elsewhere(name: str, asked: BackendOptions) -> TrafficSplit:
    lifecycle = asked.lifecycle
    if name == "httproute":
        from cryptoalpha.lifecycle.kubernetes.opening import open_httproute

        return open_httproute(lifecycle.kubernetes, lifecycle.canary, now=asked.now)
    if name == "argo":
        from cryptoalpha.lifecycle.kubernetes.opening import open_argo

        return open_argo(lifecycle.kubernetes, lifecycle.canary, now=asked.now)
    split: TrafficSplit = import_module(MODULES[name]).open_split(asked)
    return split
