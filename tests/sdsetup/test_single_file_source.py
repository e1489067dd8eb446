from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdsetup.errors import SetupError
from sdsetup.single_file_source import FileOnHub, file_on_hub, readable, refuse_other_sites
from tests.checkpoints import VARIANTS, make_variant
from tests.hub_server import HubServer, Repo
from tests.hub_server.client import Machine
from tests.single_files import write_single_file


@pytest.mark.parametrize("kind", ["blob", "resolve"])
def test_an_address_names_a_file(kind: str) -> None:
    found = file_on_hub(f"https://huggingface.co/a/b/{kind}/main/x/m%20v.safetensors?download=true")
    assert found == FileOnHub(repo_id="a/b", revision="main", name="x/m v.safetensors")
    assert file_on_hub("https://huggingface.co/a/b") is None
    assert file_on_hub("a/b") is None


def test_civitai_is_said_to_need_a_browser() -> None:
    with pytest.raises(SetupError, match="Civitai") as caught:
        refuse_other_sites("https://civitai.com/models/1?modelVersionId=2")
    assert "PATH/TO/FILE.safetensors" in caught.value.hint


def test_a_pickle_wants_a_word(tmp_path: Path) -> None:
    from conversions.events import ignore

    path = tmp_path / "m.ckpt"
    path.write_bytes(b"x")
    with pytest.raises(SetupError, match="pickle") as caught:
        readable(path, allow_pickle=False, listener=ignore)
    assert "--allow-pickle" in caught.value.hint


@pytest.mark.torch
def test_one_file_of_a_repository_is_fetched_and_planned(tmp_path: Path) -> None:
    folder = make_variant(tmp_path / "tiny", VARIANTS["stable-diffusion"])
    file = write_single_file(folder, tmp_path / "tiny.safetensors")
    with HubServer() as hub:
        files: dict[str, bytes | Path] = {"tiny.safetensors": file, "other.safetensors": b"x" * 5000}
        repo = hub.add(Repo(repo_id="acme/files", files=files))
        with Machine(endpoint=hub.endpoint, home=tmp_path / "home") as machine:
            address = f"{hub.endpoint}/acme/files/blob/main/tiny.safetensors"
            done = machine.run_cold("convert", address, "--base", str(folder), "--dry-run", "--json")
            assert done.code == 0, done.stderr
            plan = json.loads(done.stdout)
            assert plan["origin"] == "acme/files/tiny.safetensors"
            assert plan["commit"] == repo.head
            assert [path.name for path in machine.cache.rglob("*.safetensors")] == ["tiny.safetensors"]
            listed = machine.run_cold("convert", "acme/files", "--dry-run")
            assert listed.code == 1
            assert "single files: " in listed.stderr
            assert "sdsetup convert" in listed.stderr
