"""Find the tests that belong to a module."""

from __future__ import annotations

from pathlib import Path

_LONG = ("_for_real", "_verdict_is_true")
# Tests of a module that are named after what they are about.
_ALSO = {
    "conversions/package/needs.py": ("tests/conversions/test_conversion.py",),
    "conversions/package/package_metadata.py": ("tests/conversions/test_conversion.py",),
    "conversions/passes/quantize_weights.py": ("tests/conversions/weights/test_quantize.py",),
    "conversions/providers/devices.py": ("tests/sdsetup/runtime/test_devices.py",),
    "conversions/weights/lora/opened.py": ("tests/conversions/weights/lora/test_merging.py",),
    "sdsetup/imaging/pipeline.py": (
        "tests/sdsetup/imaging/test_float32_retry.py",
        "tests/sdsetup/imaging/test_preview.py",
    ),
    "sdsetup/machine/adapters/linux.py": ("tests/sdsetup/machine/adapters/test_external_tools.py",),
}
_DOCTOR = ("tests/sdsetup/doctor/test_answers.py", "tests/sdsetup/doctor/test_checks.py")
# Tests of a module that has no file of its name: those of the module that it is a part of.
_INSTEAD = {
    "conversions/checkpoint/gguf_blocks.py": ("tests/conversions/checkpoint/test_gguf.py",),
    "conversions/tokenizers/sentencepiece.py": (
        "tests/conversions/tokenizers/test_gemma.py",
        "tests/conversions/tokenizers/test_t5.py",
    ),
    "sdsetup/doctor/python.py": _DOCTOR,
    "sdsetup/doctor/runtime.py": _DOCTOR,
    "sdsetup/doctor/system.py": _DOCTOR,
    "sdsetup/machine/readers/imports_worker.py": ("tests/sdsetup/machine/readers/test_imports.py",),
    "sdsetup/machine/readers/model_needs_worker.py": ("tests/sdsetup/machine/readers/test_model_needs.py",),
}


def own_tests(module: Path, root: Path) -> list[Path]:
    """Return a module's test files, relative to the root: the file of its name, else those of its folder.

    ``conversions/weights/link.py`` has ``tests/conversions/weights/test_link.py``, and ``test_link_*.py``
    where that is no other module's. A module without such a file has those that are listed above, or those in
    its folder of ``tests``, with the one that is named after the folder; where there are none, those of the
    folder above. Tests that make environments with pip are left out: a minute each.

    Args:
        module: ``conversions/weights/link.py``.
        root: Folder of the checkout.
    """
    instead = _INSTEAD.get(module.as_posix())
    if instead is not None:
        return [Path(each) for each in instead]
    further = [Path(each) for each in _ALSO.get(module.as_posix(), ()) if (root / each).is_file()]
    return [*_named_or_around(module, root), *further]


def _named_or_around(module: Path, root: Path) -> list[Path]:
    folder = Path("tests") / module.parent
    name = module.parent.name if module.stem == "__init__" else module.stem
    beside = folder.parent if module.stem == "__init__" else folder
    modules = {f"test_{path.stem}" for path in (root / module.parent).glob("*.py")} - {f"test_{name}"}
    named = [path.relative_to(root) for path in sorted((root / beside).glob(f"test_{name}*.py"))]
    named = [path for path in named if path.stem not in modules and not path.stem.endswith(_LONG)]
    named = [path for path in named if path.stem == f"test_{name}" or path.stem.startswith(f"test_{name}_")]
    if beside / f"test_{name}.py" in named:
        return named
    while folder != Path("tests"):
        around = [path.relative_to(root) for path in sorted((root / folder).glob("test_*.py"))]
        around = [path for path in around if not path.stem.endswith(_LONG)]
        above = folder.parent / f"test_{folder.name}.py"
        around += [above] if (root / above).is_file() else []
        if around:
            return around
        folder = folder.parent
    return []


def modules_of(names: list[str], root: Path) -> list[Path]:
    """Return the modules that dotted names or paths name, relative to the root; a package's are all below it.

    Raises:
        SystemExit: There is no such module.
    """
    found: list[Path] = []
    for name in names:
        path = Path(name if "/" in name else name.replace(".", "/"))
        if (root / path).is_dir():
            found += [each.relative_to(root) for each in sorted((root / path).rglob("*.py"))]
        elif (root / path.with_suffix(".py")).is_file():
            found.append(path.with_suffix(".py"))
        else:
            raise SystemExit(f"There is no module {name}.")
    return [path for path in dict.fromkeys(found) if path.name != "_version.py"]
