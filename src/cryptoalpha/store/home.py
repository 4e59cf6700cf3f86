"""Where the store lies on disk: `CRYPTOALPHA_HOME`, else the platform's folder for application data."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptoalpha.core.errors import ConfigError, StoreError

HOME_VARIABLE = "CRYPTOALPHA_HOME"


@dataclass(frozen=True)
class Home:
    """The folder of one store and the places in it. Building one touches no disk; `prepare` does."""

    root: Path

    @classmethod
    def default(cls) -> Self:
        """The folder the environment names, else the platform's."""
        named = os.environ.get(HOME_VARIABLE)
        if named:
            return cls(Path(named).expanduser())
        from platformdirs import user_data_path

        return cls(user_data_path("cryptoalpha", appauthor=False))

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.sqlite"

    @property
    def journal(self) -> Path:
        """The journal of live and paper trading."""
        return self.root / "journal.sqlite"

    def run(self, run_id: str) -> Path:
        """The folder of one run.

        Raises:
            ConfigError: if the id is not a plain name.
        """
        if not run_id or run_id.startswith(".") or not all(letter.isalnum() or letter in "-_." for letter in run_id):
            raise ConfigError(f"{run_id!r} is not a run id", hint="use letters, digits, dots, dashes and underscores")
        return self.root / "runs" / run_id

    def prepare(self) -> None:
        """Create the folder and prove that it can be written.

        Raises:
            StoreError: if it cannot.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise StoreError(
                f"the store {self.root} cannot be written: {error.strerror or error}",
                hint=f"make the folder writable, free some space, or point {HOME_VARIABLE} to another one",
            ) from error
