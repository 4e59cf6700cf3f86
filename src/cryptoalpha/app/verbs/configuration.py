"""`init` and `config show|validate|schema`: write, show and check settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryptoalpha.app.frame import Frame, verb


def register(app: typer.Typer) -> None:
    verb(app)(init)
    group = typer.Typer(help="Show, check and describe the settings.")
    verb(group)(show)
    verb(group)(validate)
    verb(group)(schema)
    app.add_typer(group, name="config")


def init(
    frame: Frame,
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("cryptoalpha.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite.")] = False,
) -> None:
    """Write a commented configuration file: every setting with its value, unit, range and reason."""
    from cryptoalpha.app.config_template import header_of, render, write_new
    from cryptoalpha.app.settings import defaults_with, read_file_alone

    settings = defaults_with(frame.overrides) if frame.config is None else read_file_alone(frame.config, overrides=frame.overrides)
    write_new(path, render(settings, header_of(path)), force=force)
    frame.out.result({"path": str(path)}, f"wrote {path}; next: `cryptoalpha check`")


def show(
    frame: Frame,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
) -> None:
    """Print the effective settings; secrets are masked."""
    from cryptoalpha.app.output import Table
    from cryptoalpha.app.settings import leaf_values, read_settings

    effective = read_settings(frame.config, overrides=frame.overrides, hide=frame.out.hide)
    values = {".".join(key): value for key, value in leaf_values(effective.settings).items()}
    origins = {".".join(key): effective.origins.get(key, "default") for key in leaf_values(effective.settings)}
    if origin:
        table = Table(("setting", "value", "origin"), [(name, _shown(value), origins[name]) for name, value in values.items()])
        frame.out.result({"settings": values, "origins": origins}, table)
    else:
        frame.out.result({"settings": values}, [f"{name}: {_shown(value)}" for name, value in values.items()])


def validate(
    frame: Frame,
    file: Annotated[Path | None, typer.Argument(help="A file to check alone [else the effective settings].")] = None,
) -> None:
    """Check the settings without running anything; exit code 2 names what is wrong and where."""
    from cryptoalpha.app.settings import read_file_alone, read_settings

    if file is not None:
        read_file_alone(file, overrides=frame.overrides)
    else:
        read_settings(frame.config, overrides=frame.overrides, hide=frame.out.hide)
    what = str(file) if file is not None else "the effective settings"
    frame.out.result({"valid": True, "checked": what}, f"{what}: valid")


def schema(frame: Frame) -> None:
    """Print the JSON Schema of a configuration file, for editors."""
    import json

    from cryptoalpha.app.settings import Settings

    described = Settings.model_json_schema()
    frame.out.result(described, json.dumps(described, ensure_ascii=False, indent=2))


def _shown(value: object) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
