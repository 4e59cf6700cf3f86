"""`deploy render`: the Helm chart with this run's settings in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryptoalpha.app.frame import Frame


def render(
    frame: Frame,
    profile: Annotated[str | None, typer.Option("--profile", help="One of the chart's: minimal, serving, production, gpu, argo.")] = None,
    values: Annotated[list[Path] | None, typer.Option("--values", help="File of the chart's values; repeatable, the last wins.")] = None,
    value: Annotated[list[str] | None, typer.Option("--value", metavar="KEY=VALUE", help="One value of the chart; repeatable.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the release [else lifecycle.kubernetes.name].")] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", help="Whose objects they are [else lifecycle.kubernetes.namespace, else default].")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="File to write [else stdout].")] = None,
    chart: Annotated[Path | None, typer.Option("--chart", help="Folder of another chart.")] = None,
) -> None:
    """Render the Helm chart with this run's settings and the alert rules that follow from them; nothing is sent anywhere."""
    import yaml

    from cryptoalpha.app.rendering import chart_values
    from cryptoalpha.app.settings import read_settings
    from cryptoalpha.lifecycle.kubernetes.render import chart_folder, profile_file, rendered
    from cryptoalpha.store.whole_file import write_whole

    effective = read_settings(frame.config, overrides=frame.overrides, hide=frame.out.hide)
    place, folder = effective.settings.lifecycle.kubernetes, chart or chart_folder()
    files = [*([profile_file(folder, profile)] if profile else []), *(values or [])]
    text = rendered(
        folder, name=name or place.name, namespace=namespace or place.namespace or "default", files=files, values=chart_values(effective),
        sets=value or (),
    )  # fmt: skip
    objects = [{"kind": each["kind"], "name": each["metadata"]["name"]} for each in yaml.safe_load_all(text) if each]
    if out is not None:
        write_whole(out, text)
        frame.out.note(f"{len(objects)} objects in {out}")
    lines = [f"{one['kind']} {one['name']}" for one in objects]
    frame.out.result({"objects": objects, "manifest": text}, lines if out else text.rstrip("\n"))
