"""Lines: names under which versions follow each other, one champion each; and what a folder of each line must be.

    forecaster, genome, regime, fusion, agent    a model folder (`store.model_folder`) of that kind
    loop                                         what `train all` leaves: those five folders and the settings that use them together

A folder is looked at before it is copied and again as the copy: a model folder that is unfinished, or a fold that is missing, cut off or
exchanged, is refused. Of a loop's folder only its models and its settings belong to the version: `models/` of a home holds other things.

The settings of a loop name its models by the place where they were trained. A version must not depend on that place, nor lead back to it:
in the registered copy the place reads `VERSION:`, which no run can take for a folder. `app.champion` puts the version's own in its stead.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

from cryptoalpha.core.errors import ConfigError, CryptoAlphaError, ModelError
from cryptoalpha.store.model_folder import ModelFolder

Line = Literal["forecaster", "genome", "regime", "fusion", "agent", "loop"]
LINES: tuple[str, ...] = get_args(Line)
MODELS = tuple(line for line in LINES if line != "loop")
SETTINGS = "cryptoalpha.yaml"
"""The settings of a loop."""
HERE = "VERSION:"
"""Stands for the version's own folder in the settings of a loop."""


def demand_line(line: str) -> None:
    """Refuse a name that is no line.

    Raises:
        ConfigError: if it is none.
    """
    if line not in LINES:
        raise ConfigError(f"there is no line {line!r} of models", hint=f"there are: {', '.join(LINES)}")


def belonging(folder: Path, line: str) -> Iterator[Path]:
    """Files of a folder that make a version of this line, in order.

    Raises:
        ConfigError: if there is no such folder, or something in it is neither a file nor a folder.
        ModelError: if something in it is unfinished.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder", hint="name the folder of a trained model")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if line == "loop" and name.split("/")[0] not in (*MODELS, SETTINGS):
            if any(name.split("/")[0] == f"{model}.partial" for model in MODELS):
                raise ModelError(f"{folder} is unfinished: {name} is a training that was interrupted", hint="finish it: train all --resume")
            continue
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ConfigError(f"{path} is neither a file nor a folder", hint="a version is made of files alone: copy what it points to")
        if path.is_file():
            if path.name.endswith(".part"):
                raise ModelError(f"{path} is half a file, left by who was stopped", hint="train the model again, or remove that file")
            yield path


def demand_whole(folder: Path, line: str) -> None:
    """Refuse a folder that is not whole; every fold of every model in it is read.

    Raises:
        ConfigError: if the folder is not of this line.
        ModelError: if it is unfinished or damaged.
    """
    demand_line(line)
    if line == "loop":
        settings = _settings(folder)
        present = [name for name in MODELS if (folder / name).is_dir()]
        named = [name for name in MODELS if f"{HERE}/{name}" in settings or f"{folder.resolve()}/{name}" in settings]
        if absent := sorted({*named, *(() if present else MODELS)} - {*present}):
            raise ModelError(f"{folder} is no whole loop: it lacks {', '.join(absent)}", hint="finish it: cryptoalpha train all")
    else:
        present = [line]
    for name in present:
        where = folder if line == name else folder / name
        try:
            opened = ModelFolder.open(where, name)
            for number in range(len(opened.folds)):
                opened.read(number)
        except CryptoAlphaError as error:
            raise ModelError(f"{where} is not registered: {error}", hint=error.hint) from error


def without_place(text: str, folder: Path) -> str:
    """Settings of a loop, their models' place taken out."""
    return text.replace(str(folder.resolve()), HERE)


def _settings(folder: Path) -> str:
    file = folder / SETTINGS
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        hint = "`cryptoalpha train all` writes it when all models are trained"
        raise ModelError(f"{folder} is unfinished: {SETTINGS} is not there", hint=hint) from None
