"""LoRAs, embeddings and autoencoders from repositories of the Hub, from a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from sdsetup import demo
from sdsetup.adapter_source import FileInRepository, in_repository
from tests import adapters
from tests.hub_server import HubServer, Repo
from tests.hub_server.client import Machine

EMBEDDING = save({"<toy>": np.ones((2, 32), np.float32)})
SCRIPT = """
import json
from sdsetup import demo
from sdsetup.adapter_source import adapters_at, embeddings_at
from conversions.errors import ConversionError
from sdsetup.errors import SetupError
from conversions.events import ignore
answers = []
for kind, text in {cases!r}:
    try:
        if kind == "lora":
            found = adapters_at([text], ignore)[0]
            answers.append([str(found.path), found.weight])
        else:
            answers.append([str(embeddings_at([text], ignore, allow_pickle=False)[0])])
    except (ConversionError, SetupError) as error:
        answers.append([error.code, str(error), error.hint])
print(json.dumps(answers))
"""


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add(Repo(repo_id="acme/style", files={"README.md": b"x", "style v1.safetensors": b"one" * 99}))
        two: dict[str, bytes | Path] = {"a.safetensors": b"a" * 99, "sub/b.safetensors": b"b" * 99}
        hub.add(Repo(repo_id="acme/two", files=two))
        hub.add(Repo(repo_id="acme/toy", files={"learned_embeds.safetensors": EMBEDDING}))
        hub.add(Repo(repo_id="acme/old", files={"toy.pt": b"\x80"}))
        yield hub


def asked(machine: Machine, *cases: tuple[str, str]) -> list[list[str]]:
    found: list[list[str]] = json.loads(machine.run_script(SCRIPT.format(cases=list(cases))))
    return found


def test_repositories_and_addresses_give_their_file(server: HubServer, tmp_path: Path) -> None:
    with Machine(endpoint=server.endpoint, home=tmp_path) as machine:
        address = f"{server.endpoint}/acme/two/resolve/main/sub/b.safetensors"
        found = asked(
            machine,
            ("lora", "acme/style"),
            ("lora", "acme/style:0.5"),
            ("lora", "acme/two:sub/b.safetensors:-0.25"),
            ("lora", address),
            ("lora", f"{address}:2"),
            ("embedding", "acme/toy"),
            ("embedding", "acme/toy@main:learned_embeds.safetensors"),
        )
    assert [each[1:] for each in found] == [[1.0], [0.5], [-0.25], [1.0], [2.0], [], []]
    names = [Path(each[0]).name for each in found]
    assert names == ["style v1.safetensors"] * 2 + ["b.safetensors"] * 3 + ["learned_embeds.safetensors"] * 2
    assert Path(found[0][0]).read_bytes() == b"one" * 99
    assert Path(found[2][0]).read_bytes() == b"b" * 99
    assert Path(found[5][0]).read_bytes() == EMBEDDING


def test_what_cannot_be_meant_is_named(server: HubServer, tmp_path: Path) -> None:
    with Machine(endpoint=server.endpoint, home=tmp_path) as machine:
        several, lacking, pickled, gone, civitai, elsewhere, dots, endless = asked(
            machine,
            ("lora", "acme/two:0.5"),
            ("lora", "acme/two:c.safetensors"),
            ("embedding", "acme/old"),
            ("lora", "acme/nothing"),
            ("lora", "https://civitai.com/api/download/models/1"),
            ("lora", "https://example.org/x.safetensors"),
            ("lora", "acme/one:1.2.3"),
            ("lora", "acme/one:1e999"),
        )
    assert several[0] == "hub.which-file"
    assert "a.safetensors, sub/b.safetensors" in several[1]
    assert several[2] == "name one: --lora acme/two:a.safetensors"
    assert lacking[0] == "hub.no-such-file"
    assert "a.safetensors" in lacking[2]
    assert pickled[0] == "hub.no-such-file"
    assert gone[0].startswith("hub.")
    assert civitai[0] == "file.download-by-hand"
    assert elsewhere[0] == "file.not-on-hub"
    assert dots[0] == endless[0] == "lora.weight"
    assert "acme/one:0.8" in dots[2]


def test_a_file_s_name_is_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert in_repository("loras/style.safetensors") is None
    assert in_repository("style.safetensors") is None
    assert in_repository("C:\\loras\\style.safetensors") is None
    assert in_repository("acme/style") == FileInRepository(repo="acme/style", file="")
    assert in_repository("acme/style@v1:a/b.safetensors") == FileInRepository(
        repo="acme/style@v1", file="a/b.safetensors"
    )
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "style").write_bytes(b"x")
    assert in_repository("acme/style") is None


@pytest.mark.robustness  # each is fetched above
@pytest.mark.torch
def test_a_conversion_takes_all_three_from_the_hub(
    tiny_checkpoint: Path, server: HubServer, tmp_path: Path
) -> None:
    from tests.single_files import write_single_file

    lora = adapters.write(adapters.make(tiny_checkpoint, "lora"), tmp_path / "style.safetensors")
    file = write_single_file(tiny_checkpoint, tmp_path / "tiny.safetensors")
    server.add(Repo(repo_id="acme/lora", files={"style.safetensors": lora}))
    vae: dict[str, bytes | Path] = {
        path.name: path for path in (tiny_checkpoint / "vae").iterdir() if path.is_file()
    }
    server.add(Repo(repo_id="acme/vae", files=vae))
    server.add(Repo(repo_id="acme/vaes", files={"one.safetensors": b"x", "two.safetensors": b"y"}))
    with Machine(endpoint=server.endpoint, home=tmp_path / "home") as machine:
        given = ("convert", str(file), "--base", str(tiny_checkpoint), "--dry-run", "--json")
        done = machine.run_cold(
            *given, "--lora", "acme/lora:0.5", "--textual-inversion", "acme/toy", "--vae", "acme/vae"
        )
        assert done.code == 0, done.stderr
        plan = json.loads(done.stdout)
        assert [(each["name"], each["weight"]) for each in plan["adapters"]] == [("style.safetensors", 0.5)]
        assert [(each["token"], each["vectors"]) for each in plan["embeddings"]] == [("<toy>", 2)]
        refused = machine.run_cold(*given, "--vae", "acme/vaes")
        assert refused.code == 1
        assert "one.safetensors, two.safetensors" in refused.stderr
        assert "--vae acme/vaes:one.safetensors" in refused.stderr


def test_a_conversion_asks_the_hub_for_its_lora_once(server: HubServer, tmp_path: Path) -> None:
    lora = adapters.write(adapters.make(demo.checkpoint_path(), "lora"), tmp_path / "style.safetensors")
    server.add(Repo(repo_id="acme/lora", files={"style.safetensors": lora}))
    with Machine(endpoint=server.endpoint, home=tmp_path / "home") as machine:
        given = ("convert", "demo", "--lora", "acme/lora", "--target", "cpu", "--no-verify", "-o", "package")
        done = machine.run_cold(*given)
    assert done.code == 0, done.stderr
    assert len(server.paths(r"^GET /api/models/acme/lora")) == 1
    assert json.loads((machine.home / "package" / "manifest.json").read_text("utf-8"))["adapters"]
