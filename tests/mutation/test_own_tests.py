from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.mutation.own_tests import _ALSO, _INSTEAD, modules_of, own_tests


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in (
        "package/part/first.py",
        "package/part/second.py",
        "package/part/deep/third.py",
        "package/part/deep/__init__.py",
        "package/lone/fourth.py",
        "tests/package/part/test_first.py",
        "tests/package/part/test_both.py",
        "tests/package/part/test_deep.py",
        "tests/package/test_all.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("module", "tests"),
    [
        ("part/first.py", ["part/test_first.py"]),
        ("part/second.py", ["part/test_both.py", "part/test_deep.py", "part/test_first.py"]),
        ("part/deep/third.py", ["part/test_deep.py"]),
        ("part/deep/__init__.py", ["part/test_deep.py"]),
        ("lone/fourth.py", ["test_all.py"]),
    ],
)
def test_tests_of_a_module(checkout: Path, module: str, tests: list[str]) -> None:
    found = own_tests(Path("package") / module, checkout)
    assert [path.as_posix() for path in found] == [f"tests/package/{name}" for name in tests]


def test_further_tests_of_a_module_exist_and_belong_to_it() -> None:
    root = Path(__file__).resolve().parents[2]
    for module, further in _ALSO.items():
        found = [path.as_posix() for path in own_tests(Path(module), root)]
        assert [path for path in found if path in further] == list(further)
        assert len(found) > len(further)


def test_modules_without_a_file_of_their_name_may_have_others() -> None:
    root = Path(__file__).resolve().parents[2]
    for module, tests in _INSTEAD.items():
        assert find_spec(module.removesuffix(".py").replace("/", ".")) is not None
        assert not (root / "tests" / Path(module).with_name(f"test_{Path(module).name}")).exists()
        assert own_tests(Path(module), root) == [Path(each) for each in tests]
        assert all((root / each).is_file() for each in tests)


def test_a_package_stands_for_its_modules(checkout: Path) -> None:
    names = ["package.part.deep", "package/part/first.py", "package.part.first"]
    found = modules_of(names, checkout)
    assert [path.name for path in found] == ["__init__.py", "third.py", "first.py"]
    with pytest.raises(SystemExit, match=r"package\.nothing"):
        modules_of(["package.nothing"], checkout)
