"""torchrun for the processes of one machine, reachable from this machine only.

    python -m cryptoalpha.learn.fit.launch --processes 2 [--port 29500] [--restarts 0] script.py …

Plain torchrun listens on every network interface, whatever `--master-addr` says, and whoever reaches that port can write into the store
that the processes share. This is the same torchrun, agent and all, with a store that listens on 127.0.0.1. For several machines use
torchrun itself, in a network that you trust: `torchrun --nnodes 2 --nproc-per-node 4 --master-addr HOST --master-port 29500 script.py …`.

In the script, `with World.join(config.learn.distributed) as world:` and `fit(…, world=world)`.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from datetime import timedelta

from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # public, but not exported by name
from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)

from cryptoalpha.core.errors import ConfigError, CryptoAlphaError

ADDRESS = "127.0.0.1"
MEETING = "loopback"
"""The name under which torchrun knows this way to meet."""


def launch(command: Sequence[str], *, processes: int, port: int, restarts: int = 0) -> None:
    """Run `command` (a script and its arguments) in so many processes; returns when all have ended well.

    One that fails ends the others; `restarts` times all are started again, and resume from their checkpoint.

    Raises:
        ConfigError: if the port is taken.
        CryptoAlphaError: naming the process that failed first, and how.
    """
    settings = {"nnodes": "1", "nproc-per-node": str(processes), "max-restarts": str(restarts)}
    settings |= {"rdzv-backend": MEETING, "rdzv-endpoint": f"{ADDRESS}:{port}", "rdzv-id": "fit", "local-addr": ADDRESS}
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torchrun would do the same, with a warning
    try:
        torchrun.main([*(f"--{name}={value}" for name, value in settings.items()), *command])
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise CryptoAlphaError(
            f"process {rank} of {processes} ended with code {failure.exitcode}, so the training ended",
            hint="its error stands above; start again to resume from the last checkpoint",
        ) from error


class _Loopback(RendezvousHandler):
    """Where torchrun's agent and its processes meet: a store that listens on 127.0.0.1."""

    def __init__(self, port: int, run_id: str) -> None:
        self._port, self._run_id = port, run_id
        self._store: TCPStore | None = None

    def get_backend(self) -> str:
        return MEETING

    @property
    def use_agent_store(self) -> bool:
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        if self._store is None:
            listening = _listen(self._port)
            # The store takes the socket over; `detach` keeps Python from closing it.
            self._store = TCPStore(
                ADDRESS, self._port, 1, True, timedelta(seconds=600), multi_tenant=False, master_listen_fd=listening.detach()
            )
        return RendezvousInfo(PrefixStore(self._run_id, self._store), 0, 1, RendezvousStoreInfo(ADDRESS, self._port))

    def is_closed(self) -> bool:
        return False

    def set_closed(self) -> None:
        """Nobody else could join."""

    def num_nodes_waiting(self) -> int:
        return 0

    def get_run_id(self) -> str:
        return self._run_id

    def shutdown(self) -> bool:
        return True


def _meet_on_loopback(parameters: RendezvousParameters) -> RendezvousHandler:
    return _Loopback(int(parameters.endpoint.rpartition(":")[2]), parameters.run_id)


rendezvous_handler_registry.register(MEETING, _meet_on_loopback)


def _listen(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((ADDRESS, port))
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"port {port} of {ADDRESS} cannot be listened on: {error.strerror}", hint="choose another learn.distributed.master_port"
        ) from error
    listening.listen(128)
    return listening


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m cryptoalpha.learn.fit.launch", description="Train in several processes of this machine."
    )
    parser.add_argument("--processes", type=int, required=True, help="how many; learn.distributed.world_size of the script's settings")
    parser.add_argument("--port", type=int, default=29_500, help="of 127.0.0.1, where they meet")
    parser.add_argument("--restarts", type=int, default=0, help="how often to start them again after one has failed")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="script.py …", help="what each of them runs")
    chosen = parser.parse_args(arguments)
    if not chosen.command:
        parser.error("a script is needed")
    try:
        launch(chosen.command, processes=chosen.processes, port=chosen.port, restarts=chosen.restarts)
    except CryptoAlphaError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n" + (f"  → {error.hint}\n" if error.hint else ""))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
