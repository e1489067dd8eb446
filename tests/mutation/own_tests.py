"""Find the tests that belong to a module."""

from __future__ import annotations

from pathlib import Path

_LONG = ("_for_real", "_verdict_is_true", "_contract")
# Tests of a module, or of all modules below a folder, that are named after what they are about.
_ALSO = {
    "conversions/families": (
        "tests/conversions/families/test_conditioning.py",
        "tests/conversions/families/test_recipes.py",
        "tests/conversions/families/test_small_files.py",
        "tests/conversions/families/shared/test_recipes_in_numbers.py",
    ),
    "conversions/passes/quantize_weights.py": ("tests/conversions/weights/test_quantize.py",),
    "conversions/providers/ep_partition/__init__.py": (
        "tests/conversions/providers/ep_partition/test_report.py",
    ),
    "conversions/providers/devices.py": ("tests/sdsetup/runtime/test_devices.py",),
    "conversions/providers/onnx_session.py": ("tests/conversions/providers/test_attention_check.py",),
    "conversions/submodels": tuple(
        f"tests/conversions/submodels/test_{name}.py"
        for name in ("defaults", "examples", "forwards", "kind_names", "kinds", "positions", "refusals")
    ),
    "conversions/submodels/config_fields.py": ("tests/conversions/test_typed_config.py",),
    **dict.fromkeys(
        (f"conversions/graphs/{each}_rewrites.py" for each in ("export", "transformer")),
        ("tests/conversions/submodels/test_forwards.py",),
    ),
    "conversions/verification/fp16_overflow.py": ("tests/conversions/verification/test_activation_range.py",),
    "conversions/verification/parity.py": ("tests/conversions/verification/test_float32_graph.py",),
    "conversions/verification/reference.py": ("tests/conversions/verification/test_references.py",),
    "conversions/weights/lora/opened.py": ("tests/conversions/weights/lora/test_merging.py",),
    "sdsetup/hub/remote_storage.py": ("tests/sdsetup/hub/test_remote_blocks.py",),
    "sdsetup/hub/streams.py": ("tests/sdsetup/hub/test_xet.py",),
    "sdsetup/imaging/pipeline.py": (
        "tests/sdsetup/imaging/test_float32_retry.py",
        "tests/sdsetup/imaging/test_preview.py",
    ),
    "sdsetup/machine/adapters/linux.py": ("tests/sdsetup/machine/adapters/test_external_tools.py",),
}
_DOCTOR = ("tests/sdsetup/doctor/test_answers.py", "tests/sdsetup/doctor/test_checks.py")
# Tests of a module that has no file of its name: those of the module that it is a part of.
_INSTEAD = {
    "conversions/__init__.py": ("tests/conversions/test_api.py",),
    "conversions/graphs/attention_rewrites.py": ("tests/conversions/submodels/test_forwards.py",),
    **dict.fromkeys(
        (
            "conversions/families/shared/original_layout.py",
            "conversions/families/shared/original_names.py",
            "conversions/families/shared/unet_structure.py",
        ),
        (
            "tests/conversions/checkpoint/test_single_file.py",
            "tests/conversions/families/shared/test_structures_of_files.py",
            "tests/conversions/families/test_small_files.py",
        ),
    ),
    **dict.fromkeys(
        (
            "conversions/families/shared/encoders_in_file.py",
            "conversions/families/shared/flux_names.py",
            "conversions/families/shared/sana_names.py",
            "conversions/families/shared/sd3_names.py",
            "conversions/families/shared/transformer_names.py",
        ),
        (
            "tests/conversions/checkpoint/test_transformer_files.py",
            "tests/conversions/families/shared/test_structures_of_files.py",
            "tests/conversions/families/test_conditioning.py",
        ),
    ),
    "conversions/checkpoint/gguf_blocks.py": ("tests/conversions/checkpoint/test_gguf.py",),
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
    folder above. Tests that make environments with pip, or models of all families, are left out: minutes.

    Args:
        module: ``conversions/weights/link.py``.
        root: Folder of the checkout.
    """
    instead = _INSTEAD.get(module.as_posix())
    if instead is not None:
        return [Path(each) for each in instead]
    named = (Path(each) for place in (module, *module.parents) for each in _ALSO.get(place.as_posix(), ()))
    further = [each for each in named if (root / each).is_file()]
    return [*(each for each in _named_or_around(module, root) if each not in further), *further]


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
