from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sdsetup.doctor.forecast import purpose_for, with_plan
from sdsetup.doctor.judge import judge, select
from sdsetup.doctor.purpose import Kind, purpose
from sdsetup.errors import UsageError
from sdsetup.machine.adapters import Adapter
from sdsetup.machine.facts import Environment, Folder, Machine, Plan

GIB = 1024**3


def test_without_a_model_the_kind_s_own_needs_hold() -> None:
    assert purpose_for("convert", "") == purpose("convert")


@pytest.mark.parametrize("model", ["./nowhere", "nowhere", "/no/such/folder"])
def test_a_folder_that_is_not_there_is_wrong_usage(model: str) -> None:
    with pytest.raises(UsageError, match="no folder"):
        purpose_for("convert", model)


def test_images_are_judged_by_the_package_s_own_graphs(tmp_path: Path) -> None:
    wanted = purpose_for("generate", str(tmp_path))
    graphs = replace(SMALL, model=str(tmp_path), converting=False)
    found = with_plan(wanted, Environment(plan=graphs))
    assert (found.ram_bytes, found.vram_bytes, found.vram_least_bytes) == (3 * GIB, 3 * GIB, 2 * GIB)
    assert (found.cache_bytes, found.output_bytes) == (wanted.cache_bytes, wanted.output_bytes)
    assert str(tmp_path) in found.basis


def _judged(
    plan: Plan | None, *, kind: Kind = "convert", model: str = "owner/name", **changes: Any
) -> dict[str, Any]:
    """Judge a machine of 8 GiB, 10 GB free and a card of 4 GiB for a model with a plan."""
    place = {"path": "/data", "probed": "/data", "free_bytes": 10**10, "writable": True}
    environment = Environment(
        machine=Machine(platform="linux", ram_bytes=8 * GIB),
        adapters=(Adapter(index=0, name="card", vram_bytes=4 * GIB, integrated=False),),
        folders=tuple(Folder(role=role, **place) for role in ("cache", "output", "temp")),
        plan=plan,
        **changes,
    )
    wanted = with_plan(purpose_for(kind, model), environment)
    judged = judge(select(kind, ["model.plan", *SIZED]), environment, wanted)
    return {finding.id: finding.verdict for finding in judged}


SIZED = ("memory.ram", "storage.cache-space", "storage.output-space", "adapter.vram")
SMALL = Plan(
    model="owner/name", download_bytes=10**9, package_bytes=10**9, ram_bytes=3 * GIB, vram_bytes=3 * GIB,
    vram_least_bytes=2 * GIB, side=512,
)  # fmt: skip


def test_what_a_plan_reckons_is_what_the_machine_is_judged_by() -> None:
    small = _judged(SMALL)
    assert {verdict.status for verdict in small.values()} == {"ok"}
    assert all("owner/name, as its plan reckons" in small[name].evidence for name in SIZED)
    assert "images of 512 x 512: 3.0 GiB" in small["model.plan"].evidence


@pytest.mark.parametrize(
    ("changes", "finding", "status", "words"),
    [
        ({"download_bytes": 11 * 10**9}, "storage.cache-space", "failure", "11.0 GB are wanted"),
        ({"package_bytes": 9 * 10**9}, "storage.output-space", "warning", "9.0 GB are wanted"),
        ({"ram_bytes": 12 * GIB}, "memory.ram", "failure", "12.0 GiB are needed"),
        ({"vram_bytes": 6 * GIB}, "adapter.vram", "warning", "6.0 GiB are comfortable"),
        # The conversion needs no adapter, so this can be no failure.
        (
            {"vram_bytes": 9 * GIB, "vram_least_bytes": 5 * GIB},
            "adapter.vram",
            "warning",
            "5.0 GiB are the l",
        ),
        ({"vram_bytes": None, "vram_least_bytes": None}, "adapter.vram", "skipped", "not known"),
        ({"error": "--no-such", "code": "family.none"}, "model.plan", "failure", "--no-such"),
    ],
)
def test_a_larger_model_is_judged_by_its_own_size(
    changes: dict[str, Any], finding: str, status: str, words: str
) -> None:
    verdict = _judged(replace(SMALL, **changes))[finding]
    assert verdict.status == status
    assert words in verdict.evidence


def test_where_pytorch_has_to_trace_it_is_what_the_fix_installs() -> None:
    lacking = replace(SMALL, error="must be traced", code="graph.needs_pytorch", hint="Install them.")
    verdict = _judged(lacking)["model.plan"]
    assert verdict.status == "failure"
    assert verdict.fix.commands[0].endswith("install --torch")


@pytest.mark.parametrize(
    ("gibibytes", "least", "status"),
    [(7, 0, "ok"), (12, 6, "warning"), (12, 10, "failure"), (12, 0, "failure")],
)
def test_images_on_the_cpu_may_be_made_one_submodel_at_a_time(
    gibibytes: int, least: int, status: str, tmp_path: Path
) -> None:
    plan = replace(
        SMALL, converting=False, ram_bytes=gibibytes * GIB, ram_least_bytes=least * GIB, model=str(tmp_path)
    )
    verdict = _judged(plan, kind="generate", model=str(tmp_path))["memory.ram"]
    assert verdict.status == status
    if verdict.fix is not None:
        assert "--low-vram" in verdict.fix.commands[0]


@pytest.mark.parametrize(
    ("plan", "unknown"),
    [
        (Plan(model="owner/name", error="no network", code="hub.offline"), {}),
        (Plan(model="owner/name", error="planning ended with -9"), {}),
        (None, {"plan": "no answer within 25 s"}),
    ],
)
def test_without_a_plan_nothing_is_judged_by_another_model_s_size(
    plan: Plan | None, unknown: dict[str, str]
) -> None:
    judged = _judged(plan, unknown=unknown)
    assert {verdict.status for verdict in judged.values()} == {"skipped"}
    assert all("1.x" not in verdict.evidence for verdict in judged.values())


def test_other_purposes_take_nothing_from_a_plan() -> None:
    generate = purpose_for("generate", "owner/name")
    assert with_plan(generate, Environment(plan=SMALL)) == generate
    assert with_plan(purpose("convert"), Environment(plan=Plan())) == purpose("convert")


def test_a_plan_s_numbers_take_the_place_of_the_usual_ones() -> None:
    wanted = purpose_for("convert", "owner/name")
    planned = replace(SMALL, converting=True, vram_bytes=None, vram_least_bytes=None)
    found = with_plan(wanted, Environment(plan=planned))
    assert (found.vram_bytes, found.vram_least_bytes) == (0, 0)
    assert (found.cache_bytes, found.output_bytes) == (planned.download_bytes, planned.package_bytes)
    assert (found.ram_bytes, found.ram_least_bytes) == (planned.ram_bytes, planned.ram_least_bytes)
    assert found.unknown == ""
    late = with_plan(wanted, Environment(unknown={"plan": "no answer within 25 s"}))
    assert late.unknown == "no answer within 25 s"
    assert with_plan(wanted, Environment()).unknown == "it was not planned"


def test_what_is_neither_a_folder_nor_a_repository_is_refused(tmp_path: Path) -> None:
    for model in ("nothing", "./a/b", "a/b/c", str(tmp_path / "none")):
        with pytest.raises(UsageError) as caught:
            purpose_for("generate", model)
        assert (caught.value.code, caught.value.message) == ("doctor.model", f"There is no folder {model}.")
    for model in ("", "demo", "owner/name", str(tmp_path), "https://huggingface.co/a/b"):
        assert purpose_for("generate", model) == replace(purpose("generate"), model=model)
