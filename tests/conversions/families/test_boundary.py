"""What is particular to a family is said in its file or in its kinds, nowhere else."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import conversions
import sdsetup
from conversions.family import all_families

_ROOTS = (Path(conversions.__path__[0]), Path(sdsetup.__path__[0]))
_THEIR_OWN = ("families", "submodels", "tokenizers", "demo")
# How adapters of some architectures begin their keys.
_KEYS_OF_ADAPTERS = '"transformer.transformer_blocks"'


def words() -> set[str]:
    """Names of all families' submodels, components, pipeline classes and component classes."""
    found = {"vae", "77"}
    for family in all_families():
        found |= {part.name for part in family.parts} | set(family.components) | set(family.pipelines)
        found |= {kind.class_name for part in family.parts for kind in part.kinds}
    # The option and the doctor's advice name a safety checker, which is no family's own.
    return found - {"safety_checker"}


def test_no_other_file_names_what_is_a_family_s_own() -> None:
    pattern = re.compile(rf"(?<![\w-])({'|'.join(sorted(words()))})(?![\w-])")
    named = {
        f"{path.relative_to(root.parent)}:{number}: {line.strip()}"
        for root in _ROOTS
        for path in root.rglob("*.py")
        if not set(path.relative_to(root).parts) & set(_THEIR_OWN)
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if pattern.search(line.replace(_KEYS_OF_ADAPTERS, ""))
    }
    assert not named


def test_every_family_can_be_sent_to_another_process() -> None:
    for family in all_families():
        assert pickle.loads(pickle.dumps(family)).parts[0].name == family.parts[0].name  # noqa: S301
