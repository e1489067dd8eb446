"""Single files of the Hub, asked for in this process: which file is meant, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from conversions.events import ignore
from sdsetup import single_file_source
from sdsetup.errors import SetupError
from sdsetup.hub import HubModel
from sdsetup.hub.model_ref import RemoteFile
from sdsetup.single_file_source import FileOnHub, autoencoder_at, fetch, file_on_hub, only_file, readable
from tests.hub_server import HubServer, Repo

FILES = {
    "a.safetensors": b"weights of a",
    "b.GGUF": b"weights of b",
    "c.ckpt": b"pickled",
    "notes.txt": b"text",
    "vae/config.json": b"{}",
    "vae/diffusion_pytorch_model.safetensors": b"weights of the autoencoder",
}


@pytest.fixture
def hub(hub_here: HubServer) -> HubServer:
    """A Hub with the files above."""
    hub_here.add(Repo(repo_id="acme/files", files=FILES))
    return hub_here


@pytest.mark.parametrize(
    ("address", "found"),
    [
        (
            "https://huggingface.co/a/b/blob/main/x.ckpt",
            FileOnHub(repo_id="a/b", revision="main", name="x.ckpt"),
        ),
        ("http://x/a/b/resolve/v1/x/Y.GGUF ", FileOnHub(repo_id="a/b", revision="v1", name="x/Y.GGUF")),
        ("https://huggingface.co/a/b/tree/main/x.ckpt", None),
        ("https://huggingface.co/a/b/blob/x.ckpt", None),
        ("https://huggingface.co/a/b/blob/main/x.txt", None),
        ("https://civitai.com/a/b/blob/main/x.ckpt", None),
        ("https://www.civitai.red/a/b/blob/main/x.ckpt", None),
        ("huggingface.co/a/b/blob/main/x.ckpt", None),
    ],
)
def test_addresses_of_files(address: str, found: FileOnHub | None) -> None:
    assert file_on_hub(address) == found


@pytest.mark.parametrize("host", ["civitai.com", "www.civitai.com", "civitai.red", "Civitai.green"])
def test_other_sites_need_a_browser(host: str) -> None:
    for scheme in ("https://", ""):
        with pytest.raises(SetupError) as caught:
            single_file_source.refuse_other_sites(f" {scheme}{host}/models/1")
        assert caught.value.code == "file.download-by-hand"
    single_file_source.refuse_other_sites("https://huggingface.co/civitai.com")


def test_what_is_read_as_data(tmp_path: Path) -> None:
    for name in ("a.safetensors", "a.GGUF"):
        assert readable(tmp_path / name, allow_pickle=False, listener=ignore) == tmp_path / name
    for name in ("a.ckpt", "a.PT", "a.pth", "a.bin"):
        with pytest.raises(SetupError) as caught:
            readable(tmp_path / name, allow_pickle=False, listener=ignore)
        assert caught.value.code == "file.pickle"
    with pytest.raises(SetupError) as caught:
        readable(tmp_path / "unet" / "a.json", allow_pickle=True, listener=ignore)
    assert caught.value.code == "file.not-weights"
    assert caught.value.hint.startswith("Give the file of a model")
    (tmp_path / "unet").mkdir()
    for name in ("model_index.json", "unet/config.json"):
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(SetupError) as caught:
        readable(tmp_path / "unet" / "a.json", allow_pickle=True, listener=ignore)
    assert caught.value.hint == f"Give the pipeline's folder: {tmp_path}"


def test_a_file_is_fetched_at_its_revision(hub: HubServer) -> None:
    repo = hub.repos["acme/files"]
    first = repo.head
    repo.commit({"a.safetensors": b"other weights"})
    path, origin, commit = fetch(
        FileOnHub(repo_id="acme/files", revision=first, name="a.safetensors"), None, ignore
    )
    assert (path.read_bytes(), origin, commit) == (FILES["a.safetensors"], "acme/files/a.safetensors", first)
    with pytest.raises(SetupError, match="acme/files has no file x") as caught:
        fetch(FileOnHub(repo_id="acme/files", revision=first, name="x"), None, ignore)
    assert caught.value.code == "hub.no-such-file"
    others = "a.safetensors, b.GGUF, c.ckpt, vae/diffusion_pytorch_model.safetensors"
    assert caught.value.hint == f"It has {others}."


def model(count: int) -> HubModel:
    names = [f"{number}.safetensors" for number in range(count)] + ["x.txt"]
    return HubModel(
        repo_id="a/b",
        revision="main",
        commit="0" * 40,
        files=tuple(RemoteFile(name=name, size_bytes=1) for name in names),
    )


def test_one_file_must_be_meant() -> None:
    assert only_file(model(1), "--vae", (".safetensors",)) == "0.safetensors"
    with pytest.raises(SetupError) as caught:
        only_file(model(0), "--vae", (".safetensors", ".gguf"))
    assert caught.value.code == "hub.no-such-file"
    assert caught.value.message == "a/b has no .safetensors or .gguf file."
    for count, more in ((8, ""), (9, " and 1 more"), (12, " and 4 more")):
        with pytest.raises(SetupError) as caught:
            only_file(model(count), "--vae", (".safetensors",))
        assert caught.value.code == "hub.which-file"
        listed = ", ".join(f"{number}.safetensors" for number in range(min(count, 8)))
        assert caught.value.message == f"a/b has {count} files that --vae could mean: {listed}{more}."
        assert caught.value.hint == "name one: --vae a/b:0.safetensors"


def test_an_autoencoder_is_a_folder_or_a_file_here_or_on_the_hub(hub: HubServer, tmp_path: Path) -> None:
    assert autoencoder_at(str(tmp_path), ignore) == tmp_path
    (tmp_path / "a.pt").write_bytes(b"")
    address = f"{hub.endpoint}/acme/files/blob/main/a.safetensors"
    for given in (address, "acme/files:a.safetensors"):
        assert autoencoder_at(given, ignore).read_bytes() == FILES["a.safetensors"]
    for given in (str(tmp_path / "a.pt"), "acme/files:c.ckpt", address.replace("a.safetensors", "c.ckpt")):
        with pytest.raises(SetupError) as caught:
            autoencoder_at(given, ignore)
        assert caught.value.code == "file.pickle"
    with pytest.raises(SetupError) as caught:
        autoencoder_at("https://civitai.com/models/1", ignore)
    assert caught.value.code == "file.download-by-hand"
    found = autoencoder_at("acme/files", ignore)
    assert {path.name for path in found.iterdir()} == {"config.json", "diffusion_pytorch_model.safetensors"}
    hub.add(Repo(repo_id="acme/one", files={"only.safetensors": b"x", "x.txt": b""}))
    assert autoencoder_at("acme/one", ignore).name == "only.safetensors"
    with pytest.raises(SetupError) as caught:
        autoencoder_at("demo", ignore)
    assert caught.value.code == "file.not-weights"
