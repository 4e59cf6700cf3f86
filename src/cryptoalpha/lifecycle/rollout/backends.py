"""Back ends of a traffic split by name, imported only when one is opened.

A back end's module has `open_split(asked: BackendOptions) -> TrafficSplit`, which checks its options and raises a ConfigError that names
the extra if a package is missing. `inprocess` is the router inside a running `serve`, reached over HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.lifecycle.rollout.http_split import HttpSplit
from cryptoalpha.lifecycle.rollout.split import TrafficSplit

BACKENDS = {
    "inprocess": "cryptoalpha.lifecycle.rollout.backends",
    "httproute": "cryptoalpha.lifecycle.kubernetes.http_route",
    "rayserve": "cryptoalpha.lifecycle.rollout.ray_serve",
    "argo": "cryptoalpha.lifecycle.kubernetes.argo",
}
"""Module of each back end, with `open_split` in it."""


@dataclass(frozen=True)
class BackendOptions:
    """What a back end is opened with.

    Args:
        now: UTC ns.
        url: of `serve`, where it counts (or is split).
        token: bearer token for changing what `serve` answers with.
        options: what only this back end knows, such as `namespace` and `route`; unknown ones must be refused.
    """

    now: Callable[[], int]
    url: str = ""
    token: str = field(default="", repr=False)
    options: Mapping[str, str] = field(default_factory=dict)


def open_backend(name: str, asked: BackendOptions) -> TrafficSplit:
    """The back end of that name.

    Raises:
        ConfigError: if there is none, or its options do not fit.
    """
    if name not in BACKENDS:
        raise ConfigError(f"no back end {name!r}", hint=f"there are: {', '.join(BACKENDS)}")
    try:
        module = import_module(BACKENDS[name])
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the back end {name} needs {error.name}, which is not installed", hint="see the extras in docs/rollout.md"
        ) from error
    split: TrafficSplit = module.open_split(asked)
    return split


def open_split(asked: BackendOptions) -> TrafficSplit:
    """The router inside a running `serve`."""
    if asked.options:
        raise ConfigError(f"inprocess knows no option {', '.join(sorted(asked.options))}", hint="it takes --url and a token alone")
    return HttpSplit(asked.url or "http://127.0.0.1:8080", token=asked.token)
