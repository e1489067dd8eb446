"""Mutated checkpoints of every family through inspect, plan, convert and verify."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.hub_server.client import Done
from tests.robustness import mutations
from tests.robustness.materials import Materials, clear
from tests.robustness.mutations import Mutation
from tests.robustness.search import Figures, search
from tests.robustness.user import LawBrokenError, User

Case = tuple[str, tuple[Mutation, ...]]

_TYPES = {"F32": np.float32, "F16": np.float16, "F64": np.float64}


def plan(materials: Materials, *, until: float, seed: int, most: int = 10**9) -> Figures:
    """Inspect or plan mutated checkpoints: milliseconds each."""
    figures = Figures(attack="checkpoints: inspect, plan")
    with materials.user("plan") as user:

        def check(case: Case) -> None:
            variant, changes = case
            verb = ("inspect",) if len(str(changes)) % 2 else ("convert", "--dry-run", "--target", "cpu")
            with _mutated(materials, user, variant, changes) as source, user.writing_only():
                done = user.run(verb[0], str(source), *verb[1:])
            figures.count(end_of(done))

        search(_cases(materials), check, figures, until=until, seed=seed, most=most)
    figures.slowest_seconds = user.slowest_seconds
    return figures


def convert(materials: Materials, *, until: float, seed: int, most: int = 10**9) -> Figures:
    """Convert mutated checkpoints whose graphs are known, without PyTorch; compare every weight."""
    figures = Figures(attack="checkpoints: convert")
    with materials.user("convert") as user:

        def check(case: Case) -> None:
            _convert(materials, user, case, figures, "--no-verify")

        search(_cases(materials, traced=True), check, figures, until=until, seed=seed, most=most)
    figures.slowest_seconds = user.slowest_seconds
    return figures


def verify(materials: Materials, *, until: float, seed: int, most: int = 10**9) -> Figures:
    """Convert and verify checkpoints with single weights changed; compare every weight."""
    figures = Figures(attack="checkpoints: convert, verify")
    with materials.user("verify") as user:
        user.hang_seconds = 180  # torch is imported by two processes of each
        # Shrinking would take an hour, and one number is small enough.
        draw = _cases(materials, traced=True, weights=True)

        def check(case: Case) -> None:
            _convert(materials, user, case, figures, "--no-smoke-test")

        search(draw, check, figures, until=until, seed=seed, most=most)
    figures.slowest_seconds = user.slowest_seconds
    return figures


def _cases(materials: Materials, *, traced: bool = False, weights: bool = False) -> st.SearchStrategy[Case]:
    """Return a strategy of a checkpoint and its changes.

    Args:
        materials: Where the checkpoints are.
        traced: Leave out changes of what a graph is built of, which would be traced for a minute.
        weights: Change single weights alone.
    """

    def of(variant: str) -> st.SearchStrategy[Case]:
        folder = materials.checkpoint(variant)
        files = [path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors")]
        changes = mutations.of_folder(folder)
        if weights:
            changes = st.lists(mutations.weights_of(sorted(files)), min_size=1, max_size=1).map(tuple)
        if traced:
            changes = changes.filter(lambda case: not any(_changes_graph(each) for each in case))
        return st.tuples(st.just(variant), changes)

    return st.sampled_from(materials.variants).flatmap(of)


def _changes_graph(change: Mutation) -> bool:
    return change.file.endswith("/config.json")


def _convert(materials: Materials, user: User, case: Case, figures: Figures, *options: str) -> None:
    variant, changes = case
    output = user.home / "package"
    with _mutated(materials, user, variant, changes) as source:
        begun = [output.with_name(f".package.{end}") for end in ("partial", "lock", "old")]
        clear([output, *begun])
        with user.writing_only(output, *begun):
            done = user.run("convert", str(source), "--target", "cpu", "-o", str(output), *options)
        if (done.code == 0) != output.is_dir():
            raise LawBrokenError(
                f"status {done.code}, and a package is {output.is_dir()}: {done.stderr[-500:]}"
            )
        if done.code == 0:
            demand_whole(output)
            demand_weights(source, output)
    figures.count(end_of(done))


class _mutated:  # noqa: N801 - a context manager
    """A copy of a checkpoint with its changes made."""

    def __init__(self, materials: Materials, user: User, variant: str, changes: tuple[Mutation, ...]) -> None:
        self._original, self._changes = materials.checkpoint(variant), changes
        self._folder = user.home / "source"

    def __enter__(self) -> Path:
        mutations.copy(self._original, self._folder)
        for change in self._changes:
            change.apply(self._folder)
        return self._folder

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def end_of(done: Done) -> str:
    """Return what a command came to, for the figures."""
    if done.code == 0:
        return "done"
    return "explained" if "error:" in done.stderr else "said wrong"


def demand_whole(package: Path) -> None:
    """Demand that a package's files are those of its manifest.

    Raises:
        LawBrokenError: It is torn.
    """
    from conversions.package.layout import open_package, record

    opened = open_package(package)
    there = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    if there - {"manifest.json"} != set(opened.files):
        raise LawBrokenError(f"torn package: {sorted(there ^ set(opened.files))[:5]}")
    for name, expected in opened.files.items():
        if record(package / name) != expected:
            raise LawBrokenError(f"torn package: {name} is not as its manifest says")


def demand_weights(checkpoint: Path, package: Path) -> None:
    """Demand that a package's tensors with a checkpoint's names hold the checkpoint's numbers.

    Read with numpy and onnx alone, by no code of the conversion.

    Raises:
        LawBrokenError: A tensor differs, or few tensors have a name of the checkpoint.
    """
    import onnx
    from onnx import numpy_helper

    for graph in sorted(package.glob("*/model.onnx")):
        component = graph.parent.name
        folder = checkpoint / (component if (checkpoint / component).is_dir() else "vae")
        stored: dict[str, Any] = {}
        for file in folder.glob("*.safetensors"):
            stored |= _tensors(file)
        model = onnx.load(graph)
        met = 0
        for initializer in model.graph.initializer:
            if initializer.name not in stored:
                continue
            met += 1
            wanted = stored[initializer.name]
            found = numpy_helper.to_array(initializer)
            forms = [wanted.T, wanted.reshape(found.shape)] if wanted.size == found.size else []
            with np.errstate(over="ignore"):
                same = any(
                    form.shape == found.shape
                    and np.array_equal(form.astype(found.dtype), found, equal_nan=found.dtype.kind == "f")
                    for form in forms
                )
            if not same:
                raise LawBrokenError(
                    f"wrong package: {component} {initializer.name} differs from the checkpoint"
                )
        if met < len(stored) // 4:
            raise LawBrokenError(f"wrong package: {component} has {met} of {len(stored)} tensors by name")


def _tensors(file: Path) -> dict[str, Any]:
    content = file.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    found = {}
    for name, entry in json.loads(content[8 : 8 + length]).items():
        if name != "__metadata__" and entry["dtype"] in _TYPES:
            first, last = (8 + length + place for place in entry["data_offsets"])
            values = np.frombuffer(content[first:last], _TYPES[entry["dtype"]])
            found[name] = values.reshape(entry["shape"])
    return found
