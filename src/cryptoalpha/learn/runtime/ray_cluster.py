"""The Ray cluster of this process: found or started, shared by all who need it, left when the last of them is done.

The only module that imports ray, and only when a cluster is wanted. Its pieces of the house:

- A Ray started here has no dashboard, reports no usage, and keeps its logs and sockets in one short folder.
- Token authentication is on unless the settings say otherwise; a token written here is readable by its owner only (Ray writes its own for
  everybody to read).
- Ray's processes listen on all network interfaces, whatever address they are given: run them in a network that you trust.

Source: docs.ray.io, "Configuring Ray", "Token authentication" (Ray 2.60).
"""

from __future__ import annotations

import importlib
import os
import secrets
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptoalpha.core.errors import ConfigError, VenueError
from cryptoalpha.learn.config import LONGEST_TEMP_DIR, RuntimeConfig
from cryptoalpha.learn.workers import ONE_THREAD

MODE, TOKEN, TOKEN_FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"

_LOCK = threading.Lock()
_CLUSTERS: list[_Cluster] = []
"""The one this process is connected to, if any."""


def load_ray(part: str = "ray") -> Any:
    """The `ray` package or one of its modules.

    Raises:
        ConfigError: if it is not installed.
    """
    try:
        return importlib.import_module(part)
    except ImportError as error:
        raise ConfigError(
            f"learn.runtime.backend is ray, but {part} cannot be imported: {error}",
            hint='pip install "cryptoalpha[ray]", or set learn.runtime.backend to local',
        ) from error


def join_cluster(config: RuntimeConfig) -> Callable[[], None]:
    """Connect to the cluster of the settings, or start one; returns what leaves it.

    Raises:
        ConfigError: if Ray is not installed, or this process is connected with other settings.
        VenueError: if the cluster cannot be reached or started.
    """
    ray = load_ray()
    with _LOCK:
        if not _CLUSTERS:
            _CLUSTERS.append(_Cluster(ray, config))
        cluster = _CLUSTERS[0]
        if (cluster.config.address, cluster.config.token_auth) != (config.address, config.token_auth):
            raise ConfigError(
                f"this process is connected to the Ray cluster {cluster.config.address or 'started here'!r} and cannot join "
                f"{config.address or 'one started here'!r} as well",
                hint="one process, one cluster: close the first before opening the second",
            )
        cluster.users += 1
    left = threading.Event()

    def leave() -> None:
        with _LOCK:
            if left.is_set():
                return
            left.set()
            cluster.users -= 1
            if not cluster.users:
                _CLUSTERS.remove(cluster)
                cluster.end()

    return leave


class _Cluster:
    """A connection, and the Ray behind it if it was started here."""

    def __init__(self, ray: Any, config: RuntimeConfig) -> None:
        self.config, self.users, self._ray = config, 0, ray
        self._made: Path | None = None
        self._environment = {name: os.environ.get(name) for name in (MODE, TOKEN_FILE)}
        if ray.is_initialized():
            raise ConfigError("this process has called ray.init itself", hint="leave that to learn.runtime, or call ray.shutdown first")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            settings = self._settings()
        except BaseException:
            self.end()
            raise
        try:
            ray.init(**settings, logging_level="WARNING", log_to_driver=False, runtime_env={"env_vars": ONE_THREAD})
        except (ConnectionError, RuntimeError, TimeoutError, OSError, ValueError, ray.exceptions.RayError) as error:
            self.end()
            raise VenueError(
                f"the Ray cluster {config.address or 'of this machine'} cannot be {'reached' if config.address else 'started'}: {error}",
                hint="check learn.runtime.address and the cluster's token" if config.address else "see the logs in learn.runtime.temp_dir",
            ) from error

    def end(self) -> None:
        """Leave; a Ray that was started here ends."""
        self._ray.shutdown()
        for name, before in self._environment.items():
            if before is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = before
        if self._made is not None:
            shutil.rmtree(self._made, ignore_errors=True)

    def _settings(self) -> dict[str, Any]:
        """What `ray.init` is given."""
        config = self.config
        os.environ[MODE] = "token" if config.token_auth else "disabled"
        load_ray("ray._raylet").Config.initialize("")  # it was read when ray was imported; Ray itself reads it anew in this way
        if config.address:
            if config.token_auth:
                check_token()
            return {"address": config.address}
        folder = Path(config.temp_dir) if config.temp_dir else self._new_folder()
        if config.token_auth and TOKEN not in os.environ:
            os.environ[TOKEN_FILE] = str(kept_token(folder))
        return {
            "num_cpus": config.cpus or None,
            "object_store_memory": config.object_store_mib * 2**20,
            "include_dashboard": False,
            "_temp_dir": str(folder),
        }

    def _new_folder(self) -> Path:
        parent = Path(tempfile.gettempdir())
        if len(str(parent)) + 12 > LONGEST_TEMP_DIR:
            parent = Path("/tmp")
        self._made = Path(tempfile.mkdtemp(prefix="ray-", dir=parent))
        return self._made


def deaths(ray: Any) -> tuple[type[BaseException], ...]:
    """What Ray raises where a call has no answer because an actor, its process or its machine is gone."""
    names = ("RayActorError", "ObjectLostError", "WorkerCrashedError", "NodeDiedError", "OutOfMemoryError", "ActorUnschedulableError")
    return tuple(getattr(ray.exceptions, name) for name in names)


def kept_token(folder: Path) -> Path:
    """The file with the token of a cluster whose files lie in `folder`, made if it is not there; only its owner may read it."""
    path = folder / "token"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    except FileExistsError:
        path.chmod(0o600)
    return path


def check_token() -> None:
    """See that there is a token to show to a cluster, and that nobody else on this machine can read it.

    Raises:
        ConfigError: if there is none, or others may read it.
    """
    if os.environ.get(TOKEN):
        return
    path = Path(os.environ.get(TOKEN_FILE) or Path.home() / ".ray" / "auth_token")
    if not path.is_file():
        raise ConfigError(
            f"there is no token for the Ray cluster at {path}",
            hint=f"copy the head node's token there with mode 0600, or name it in {TOKEN_FILE}",
        )
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"the Ray token {path} can be read by others on this machine", hint=f"chmod 600 {path}")
