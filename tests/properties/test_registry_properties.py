"""Any sequence of promotions, rollbacks and collections leads where a plain list leads."""

from __future__ import annotations

import shutil
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.lifecycle.registry.registry import ModelRegistry
from cryptoalpha.store.model_folder import write_fold, write_folder

VERSIONS = 5
MOVES = st.one_of(
    st.tuples(st.just("promote"), st.integers(0, VERSIONS - 1), st.integers(-1, VERSIONS - 1)),
    st.tuples(st.just("rollback"), st.just(0), st.integers(-1, VERSIONS - 1)),
    st.tuples(st.just("any"), st.integers(0, VERSIONS - 1), st.just(0)),
    st.tuples(st.just("back"), st.just(0), st.just(0)),
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A registry of some versions, to be copied."""
    root = tmp_path_factory.mktemp("template")
    registry, ids = ModelRegistry(root / "registry", now=lambda: 1), []
    for number in range(VERSIONS):
        folder = root / f"model {number}"
        fold = write_fold(folder, 0, {"weights": np.full(2, float(number))}, {"usable_from": 1}, kind="genome")
        write_folder(folder, kind="genome", description={}, lineage={}, folds=[fold])
        ids.append(registry.register(folder, line="genome", data="d", commit="c", config={}, seed=0, metrics={}).id)
    return registry.root, ids


def filled(template: tuple[Path, list[str]], folder: Path) -> tuple[ModelRegistry, list[str]]:
    root, ids = template
    shutil.copytree(root, folder / "registry")
    return ModelRegistry(folder / "registry", now=lambda: 1), ids


@settings(max_examples=40, deadline=None)
@given(st.lists(MOVES, max_size=14))
def test_champions_are_a_stack_and_nothing_else(template, moves):
    with tempfile.TemporaryDirectory() as folder:
        registry, ids = filled(template, Path(folder))
        stack: list[str] = []
        taken: tuple[str, str] | None = None  # who was taken off last, if nothing came after it, and who was left
        changes = 0
        for kind, which, whom in moves:
            top = stack[-1] if stack else None
            expected = None if whom < 0 else ids[whom]
            if kind in ("promote", "any"):
                allowed = kind == "any" or top == expected or top == ids[which]
                call = lambda: registry.promote("genome", ids[which], reason="r", **({} if kind == "any" else {"expected": expected}))  # noqa: E731, B023
                if not allowed:
                    with pytest.raises(ConfigError):
                        call()
                    continue
                assert call().id == ids[which]
                if top != ids[which]:
                    stack.append(ids[which])
                    changes, taken = changes + 1, None
                continue
            told = {} if kind == "back" else {"expected": expected}
            if kind == "rollback" and taken is not None and expected == taken[0]:
                assert registry.rollback("genome", reason="r", **told).id == taken[1]
            elif (kind == "back" or top == expected) and len(stack) > 1:
                assert registry.rollback("genome", reason="r", **told).id == stack[-2]
                taken = (stack.pop(), stack[-1])
                changes += 1
            else:
                with pytest.raises(ConfigError):
                    registry.rollback("genome", reason="r", **told)
        assert registry.champion_id("genome") == (stack[-1] if stack else None)
        history = registry.history("genome")
        assert len(history) == changes
        assert all(after.was == before.version for before, after in pairwise(history))
        gone = {one.id for one in registry.gc(len(stack) + 1, dry_run=False).versions}
        assert gone.isdisjoint(stack)


@settings(max_examples=20, deadline=None)
@given(
    keep=st.integers(1, 4),
    promoted=st.lists(st.integers(0, VERSIONS - 1), max_size=5),
    pinned=st.sets(st.integers(0, VERSIONS - 1), max_size=2),
)
def test_a_dry_run_says_what_gc_does_and_gc_never_takes_what_is_used(template, keep, promoted, pinned):
    with tempfile.TemporaryDirectory() as folder:
        registry, ids = filled(template, Path(folder))
        for number in promoted:
            registry.promote("genome", ids[number], reason="r")
        for number in pinned:
            registry.pin(ids[number], "somebody")
        would = {one.id for one in registry.gc(keep, dry_run=True).versions}
        assert {one.id for one in registry.versions()} == set(ids)
        done = registry.gc(keep, dry_run=False)
        assert {one.id for one in done.versions} == would
        left = {one.id for one in registry.versions()}
        assert left == set(ids) - would == {path.name for path in registry.places.iterdir()}
        assert {ids[number] for number in pinned} <= left
        assert len(left) >= keep
        if promoted:
            assert registry.champion("genome").id == ids[promoted[-1]]
        assert registry.gc(keep, dry_run=False).versions == ()
