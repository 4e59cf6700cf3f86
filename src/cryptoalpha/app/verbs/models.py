"""`models list|show|register|judge|promote|rollback|lineage|gc|export`: the registry of models, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryptoalpha.app.frame import Frame, verb
from cryptoalpha.app.output import Table
from cryptoalpha.app.verbs import judge

if TYPE_CHECKING:
    from cryptoalpha.lifecycle.registry.registry import ModelRegistry
    from cryptoalpha.lifecycle.registry.version import Version

Line = Annotated[str, typer.Argument(help="forecaster, genome, regime, fusion, agent or loop.")]
Id = Annotated[str, typer.Argument(help="Id of a version, or its first four characters or more.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the history.")]
Expected = Annotated[str | None, typer.Option("--expected", help="Id of who must be champion now, or `none` [else whoever is].")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Versions of models: registered, judged, promoted, rolled back.")
    verb(group, "list")(versions)
    verb(group)(show)
    verb(group, "register")(take_in)
    judge.register(group)
    verb(group)(promote)
    verb(group)(rollback)
    verb(group)(lineage)
    verb(group)(gc)
    verb(group)(export)
    app.add_typer(group, name="models")


def versions(frame: Frame, line: Annotated[str | None, typer.Option("--line", help="Only this line.")] = None) -> None:
    """List the versions that are kept, the newest first, and who is champion."""
    from cryptoalpha.core.time import iso
    from cryptoalpha.lifecycle.registry.lines import LINES

    registry = _registry(frame)
    found = registry.versions(line)
    champions = {name: registry.champion_id(name) for name in LINES}
    rows = [
        (one.short, one.line, "champion" if champions[one.line] == one.id else _verdict(registry, one), iso(one.created_at),
         "" if one.parent is None else one.parent[:12], f"{one.size / 1e6:.1f} MB")
        for one in found
    ]  # fmt: skip
    document = {"champions": champions, "versions": [one.as_dict() for one in found]}
    table = Table(("version", "line", "state", "registered", "parent", "size"), rows)
    frame.out.result(document, table if rows else "no version is registered: cryptoalpha models register FOLDER --line LINE")


def show(frame: Frame, version: Id) -> None:
    """Verify every file of a version, and say all that is known of it."""
    from cryptoalpha.core.time import iso

    registry = _registry(frame)
    one = registry.get(version)
    reports = registry.reports(one.id)
    pins = registry.pins(one.id)
    lines = [
        f"{one.id} of the line {one.line}, registered {iso(one.created_at)}",
        f"parent {one.parent or 'none'}, data {one.data}, code {one.commit}, seed {one.seed}",
        f"{len(one.files)} files, {one.size:,} bytes, all as they were registered, at {one.path}",
        *(f"{name} {value:.6g}" for name, value in sorted(one.metrics.items())),
        *(f"judged {iso(each.at)}: {'passed' if each.passed else 'refused'}" for each in reports),
        *(f"held by {by}" for by in pins),
    ]
    told = [{"at": iso(each.at), "passed": each.passed, "content": dict(each.content)} for each in reports]
    is_champion = registry.champion_id(one.line) == one.id
    frame.out.result({**one.as_dict(), "champion": is_champion, "reports": told, "pins": list(pins)}, lines)


def take_in(
    frame: Frame,
    folder: Annotated[Path, typer.Argument(help="Folder of a trained model, or of `train all`.")],
    line: Annotated[str, typer.Option("--line", help="forecaster, genome, regime, fusion, agent or loop.")],
    parent: Annotated[str | None, typer.Option("--parent", help="Version it is to follow [else the line's champion].")] = None,
) -> None:
    """Copy a trained model into the registry as a version that cannot change."""
    from cryptoalpha.app.champion import code_commit
    from cryptoalpha.app.registering import told_by

    registry = _registry(frame)
    told = told_by(folder.expanduser(), line)
    above = parent or registry.champion_id(line)
    one = registry.register(
        folder.expanduser(), line=line, data=told.data, commit=code_commit(), config=told.config, seed=told.seed, metrics=told.metrics,
        parent=above,
    )  # fmt: skip
    frame.out.result(one.as_dict(), f"version {one.short} of the line {one.line}: {len(one.files)} files at {one.path}")


def promote(
    frame: Frame,
    version: Id,
    reason: Reason = "",
    expected: Expected = None,
    force: Annotated[bool, typer.Option("--force", help="Promote without a passed judgement; needs --reason.")] = False,
) -> None:
    """Make a version champion of its line; refused unless its newest judgement, against the present champion, was passed."""
    from cryptoalpha.app.promoting import promote_judged

    registry = _registry(frame)
    one, words = promote_judged(registry, version, reason=reason, expected=expected, force=force)
    if force:
        frame.out.warn(f"promoted without a passed judgement ({words})")
    _tell_runs(frame)
    frame.out.result({"champion": one.id, "line": one.line, "forced": force}, f"{one.short} is champion of {one.line}: {words}")


def rollback(frame: Frame, line: Line, reason: Reason = "", expected: Expected = None) -> None:
    """Make the champion before the present one champion again."""
    from cryptoalpha.app.promoting import expectation

    registry = _registry(frame)
    one = registry.rollback(line, reason=reason, expected=expectation(expected))
    _tell_runs(frame)
    frame.out.result({"champion": one.id, "line": line}, f"{one.short} is champion of {line} again")


def lineage(frame: Frame, version: Id) -> None:
    """Say from which versions a version comes, and how champions of its line changed."""
    from cryptoalpha.core.time import iso

    registry = _registry(frame)
    found = registry.lineage(version)
    history = registry.history(found[0].line)
    rows = [(one.short, iso(one.created_at), one.commit[:12], one.data[:12], "files collected" if one.removed_at else "") for one in found]
    changes = [(each.version[:12], (each.was or "")[:12], iso(each.at), each.cause, each.reason) for each in history]
    document = {"lineage": [one.as_dict() for one in found], "history": [each.as_dict() for each in history]}
    tables: list[str | Table] = [
        Table(("version", "registered", "code", "data", ""), rows, "from child to parent"),
        "",
        Table(("champion", "before", "at", "cause", "reason"), changes, f"champions of {found[0].line}"),
    ]
    frame.out.result(document, tables)


def gc(
    frame: Frame,
    keep: Annotated[
        int | None, typer.Option("--keep", min=1, help="Versions of each kind that stay [else lifecycle.registry.keep].")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go.")] = False,
) -> None:
    """Give up files of versions that nobody needs; champions, ways back, the newest, the pinned and those rolled out stay."""
    from cryptoalpha.app.rolling_out import in_rollout

    keep = keep or frame.settings.lifecycle.registry.keep
    done = _registry(frame).gc(keep, dry_run=dry_run, held=in_rollout(frame.home))
    word = "would be" if dry_run else "were"
    lines = [f"{one.short} of {one.line}, {one.size / 1e6:.1f} MB" for one in done.versions]
    frame.out.result(done.as_dict(), [*lines, f"{len(lines)} {word} given up, {done.size / 1e6:.1f} MB; {done.kept} kept"])


def export(
    frame: Frame,
    version: Id,
    onnx: Annotated[bool, typer.Option("--onnx", help="ONNX graphs of the forecaster, one per fold, compared with torch.")] = False,
    assets: Annotated[int | None, typer.Option("--assets", min=1, help="Assets of a graph [else as many as it was trained with].")] = None,
    mlflow: Annotated[str | None, typer.Option("--mlflow", help="Folder or URI of MLflow to log the version to.")] = None,
) -> None:
    """Write a version for others: as ONNX graphs, or as a run of MLflow."""
    from cryptoalpha.core.errors import ConfigError

    if not onnx and mlflow is None:
        raise ConfigError("say what to export to", hint="--onnx, or --mlflow DIR")
    registry = _registry(frame)
    one, document, lines = registry.get(version), dict[str, object](), list[str]()
    if onnx:
        from cryptoalpha.lifecycle.registry.onnx_files import export_onnx

        graphs = export_onnx(one, assets=assets)
        document["onnx"] = [str(path) for path in graphs.files]
        said = f"{len(graphs.files)} graphs for {graphs.assets} assets, opset {graphs.opset}, within {graphs.tolerance:.0e} of torch"
        lines.append(f"{said}: {graphs.path}")
    if mlflow is not None:
        from cryptoalpha.lifecycle.registry.mlflow_export import export_mlflow

        run = export_mlflow(one, mlflow)
        document["mlflow_run"] = run
        lines.append(f"MLflow run {run} at {mlflow}")
    frame.out.result({"version": one.id, **document}, lines)


def _registry(frame: Frame) -> ModelRegistry:
    from cryptoalpha.app.champion import open_registry

    return open_registry(frame.home)


def _tell_runs(frame: Frame) -> None:
    """Runs that follow the registry hear of its champions."""
    from cryptoalpha.app.champion import series_of_champions

    if frame.settings.lifecycle.registry.follow:
        series_of_champions(frame.home)


def _verdict(registry: ModelRegistry, version: Version) -> str:
    reports = registry.reports(version.id)
    return "not judged" if not reports else "passed" if reports[-1].passed else "refused"
