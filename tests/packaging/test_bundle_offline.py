"""A bundle is made, carried to another folder and installed from where there is no network at all.

Minutes and about 150 MB of downloads: ``python -m tests -m robustness tests/packaging``.
"""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sdsetup import demo
from tests.packaging.building import ROOT
from tests.packaging.newcomer import Newcomer, base_python

if sys.platform == "win32":
    pytest.skip("the tests there have no sources", allow_module_level=True)

pytestmark = [pytest.mark.robustness, pytest.mark.timeout(900)]

# A network of its own, in which there is nothing but a loopback that is down.
_ALONE = ("unshare", "--map-root-user", "--net")


def _refuses() -> bool:
    return subprocess.run([*_ALONE, "true"], capture_output=True, check=False).returncode != 0


@pytest.mark.skipif(_refuses(), reason="no networks of one's own can be made here")
def test_made_carried_and_installed_without_a_network(tagged: Path, tmp_path: Path) -> None:
    model = tmp_path / "mine"
    shutil.copytree(demo.checkpoint_path(), model)
    here = Newcomer(home=tmp_path / "here", downloads=tmp_path / "downloads", wheel=tagged)
    said = here.install("--lean", "--bundle", str(tmp_path / "bundle"), str(model))
    assert "install --offline ." in said

    carried = tmp_path / "on another machine" / "the bundle"
    carried.parent.mkdir()
    (tmp_path / "bundle").rename(carried)
    shutil.rmtree(model)
    shutil.rmtree(here.home)
    there = replace(here, home=tmp_path / "there", downloads=tmp_path / "nothing")
    probe = "import socket; socket.create_connection(('192.0.2.1', 443), timeout=5)"
    with there.start(*_ALONE, base_python(), "-c", probe) as process:
        assert "unreachable" in process.communicate()[0]

    said = there.run(
        *_ALONE,
        "sh",
        "-c",
        'cd "$1" && "$SDSETUP_PYTHON" -m sdsetup install --offline . --yes',
        "sh",
        carried,
    )
    assert "The smoke test passed" in said
    (image,) = (carried / "images").glob("demo-*.png")
    shutil.rmtree(carried / "images")
    shutil.rmtree(carried / "packages")

    said = there.run(*_ALONE, "sh", ROOT / "install.sh", "--offline", carried, "mine", "--yes")
    assert "The smoke test passed" in said
    (image,) = (there.home / "images").glob("*.png")
    assert image.stat().st_size > 1000

    program = carried / "sdsetup" / "workflow.py"
    program.write_bytes(program.read_bytes().replace(b"0", b"1", 1))
    with there.start(*_ALONE, "sh", ROOT / "install.sh", "--offline", carried, "--yes") as process:
        assert "workflow.py is missing, was added, or was changed on the way" in process.communicate()[0]
    assert process.returncode == 1
