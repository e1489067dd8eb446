"""What the doctor says of installed packages, and just which of them a fix installs again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sdsetup.bootstrap import installer, known_good
from sdsetup.doctor.finding import Verdict
from sdsetup.machine.facts import Environment, Imports
from tests.sdsetup.doctor.test_checks import CONVERTING, _healthy, _verdict

PYTHON = "/data/venv/bin/python"


def packages(**changes: Any) -> Environment:
    """Return a healthy machine with other facts about its packages."""
    healthy = _healthy("linux")
    assert healthy.packages is not None
    return replace(healthy, packages=replace(healthy.packages, **changes))


def mended(verdict: Verdict) -> tuple[str, ...]:
    """Return what the fix would install again, where that is all it does."""
    assert verdict.fix is not None
    (action,) = verdict.fix.actions
    names = action.argv[4:]
    assert action == installer.mend(PYTHON, names)
    return names


def only(finding_id: str) -> tuple[str, ...]:
    return (f"{PYTHON} -m sdsetup doctor --fix --yes --only {finding_id}",)


def test_what_is_missing_is_installed_with_the_extras_that_are_needed() -> None:
    found = _verdict(
        packages(missing={"httpx2": "huggingface-hub", "typer": "sdsetup"}, extras={"httpx2": "socks"}),
        "packages.core",
    )
    assert found.status == "failure"
    assert found.evidence == "missing: httpx2 (for huggingface-hub), typer"
    assert mended(found) == ("httpx2[socks]", "typer")
    assert found.fix.commands == only("packages.core")


def test_core_and_converting_answer_for_their_own_packages() -> None:
    converting = packages(missing={"torch": "sdsetup"})
    assert _verdict(converting, "packages.core").status == "ok"
    torn = _verdict(converting, "packages.convert")
    assert (torn.status, torn.evidence, mended(torn)) == ("failure", "missing: torch", ("torch",))
    assert torn.fix.commands == only("packages.convert")
    core = packages(missing={"typer": "sdsetup"})
    assert _verdict(core, "packages.core").status == "failure"
    whole = _verdict(core, "packages.convert")
    assert whole.status == "ok"
    versions = known_good.versions("linux")
    assert f"torch {versions['torch']}, diffusers {versions['diffusers']}" in whole.evidence


def test_all_of_converting_left_out_is_a_choice_and_a_part_of_it_a_fault() -> None:
    lean = _verdict(packages(missing=dict.fromkeys(CONVERTING, "sdsetup")), "packages.convert")
    assert lean.status == "warning"
    assert lean.fix.commands == ("python -m sdsetup install --torch",)
    further = dict.fromkeys(CONVERTING, "sdsetup") | {"safetensors": "diffusers"}
    assert _verdict(packages(missing=further), "packages.convert").status == "warning"
    for name in CONVERTING:
        part = dict.fromkeys(CONVERTING - {name}, "sdsetup")
        assert _verdict(packages(missing=part), "packages.convert").status == "failure"


def test_a_version_is_the_tested_one_whatever_its_build() -> None:
    versions = packages().packages.versions
    tested = known_good.versions("linux")["torch"]
    for version, status in ((tested, "ok"), (f"{tested}+cpu", "ok"), ("1.0+cpu", "warning")):
        found = _verdict(packages(versions={**versions, "torch": version}), "packages.known-good")
        assert found.status == status
        if status == "warning":
            assert found.evidence == f"torch 1.0+cpu (tested: {tested})"
            assert mended(found) == ("torch",)
            assert found.fix.commands == only("packages.known-good")
        else:
            assert found.evidence == f"all {len(versions)} that are installed are the tested versions"
    assert _verdict(packages(versions={"stranger": "1"}), "packages.known-good").status == "skipped"


def test_packages_of_others_are_not_judged() -> None:
    have = {**packages().packages.versions, "stranger": "9"}
    assert _verdict(packages(versions=have), "packages.known-good").status == "ok"


@pytest.mark.parametrize(
    ("kind", "statuses"),
    [
        ("anything", ("failure", "failure")),
        ("convert", ("failure", "failure")),
        ("generate", ("failure", "ok")),
        ("install", ("failure", "ok")),
    ],
)
def test_what_a_purpose_does_not_need_is_no_fault_of_it(kind: str, statuses: tuple[str, str]) -> None:
    for name, status in zip(("typer", "torch"), statuses, strict=True):
        unfit = _verdict(packages(unfit={name: "1, and x wants >2"}), "packages.known-good", kind)
        torn = _verdict(packages(torn={name: "of 9 files 1 is missing"}), "packages.whole", kind)
        assert (unfit.status, torn.status) == (status, status)
        if status == "failure":
            assert unfit.evidence == f"{name} is 1, and x wants >2"
            assert torn.evidence == f"{name}: of 9 files 1 is missing"
            assert mended(unfit) == mended(torn) == (name,)
            assert unfit.fix.commands == only("packages.known-good")
            assert torn.fix.commands == only("packages.whole")


def failed(environment: Environment, *modules: str) -> Environment:
    errors = {name: f"ImportError: {name}" for name in modules}
    return replace(environment, imports=Imports(tried=20, failed=errors))


def test_imports_that_fail_name_their_packages() -> None:
    healthy = packages()
    for modules, names in (
        (("numpy.core",), ("numpy",)),
        (("PIL.Image:open", "numpy"), ("numpy", "pillow")),
        (("onnx_ir",), ("onnx-ir",)),
        (("numpy", "sdsetup.cli.app"), ("numpy",)),
    ):
        found = _verdict(failed(healthy, *modules), "packages.imports")
        assert found.status == "failure"
        assert mended(found) == names
        assert found.fix.commands == only("packages.imports")
        shown = "; ".join(f"{name.partition(':')[0]}: ImportError: {name}" for name in modules)
        assert found.evidence == shown


def test_modules_of_sdsetup_itself_and_of_strangers_are_not_installed_again() -> None:
    own = _verdict(failed(packages(), "sdsetup.cli.app", "conversions.plan"), "packages.imports")
    assert own.fix.commands == ("git status",)
    strange = _verdict(failed(packages(), "stranger", "sdsetup.cli.app"), "packages.imports")
    assert strange.fix.commands == ("python -m sdsetup install",)
    assert not own.fix.actions
    assert not strange.fix.actions


def test_what_is_missing_or_torn_is_repaired_before_imports_are() -> None:
    again = ("python -m sdsetup doctor",)
    for changes, first in (
        ({"missing": {"typer": "sdsetup"}}, True),
        ({"missing": {"torch": "sdsetup"}}, False),
        ({"torn": {"torch": "of 9 files 1 is missing"}}, True),
        ({}, False),
    ):
        found = _verdict(failed(packages(**changes), "numpy"), "packages.imports")
        assert (found.fix.commands == again) is first
        assert bool(found.fix.actions) is not first


def test_four_imports_that_fail_are_shown_and_the_others_counted() -> None:
    four = _verdict(failed(packages(), *"abcd"), "packages.imports").evidence
    assert four == "; ".join(f"{name}: ImportError: {name}" for name in "abcd")
    assert _verdict(failed(packages(), *"abcdef"), "packages.imports").evidence == f"{four}; and 2 more"
    whole = _verdict(failed(packages()), "packages.imports")
    assert (whole.status, whole.evidence) == ("ok", "20 modules were imported in a process of its own")
