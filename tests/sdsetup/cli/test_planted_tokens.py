"""Tokens planted wherever people keep them, and searched for in everything that every verb leaves behind."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.hub_server import Account, HubServer, Repo
from tests.hub_server.checkpoint import checkpoint_files
from tests.hub_server.client import Machine
from tests.sdsetup import toy_package

if sys.platform != "linux":
    pytest.skip("reads /proc", allow_module_level=True)

PLANTED = "planted"
HUB_TOKEN = "hf_0Planted0Token0Shape0123"  # noqa: S105
OTHER = "Planted-of-no-known-shape"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where tokens are.

    Attributes:
        name: For the test's name.
        variables: The environment.
        saved: What the token file holds.
        login: What stands before the endpoint's host.
    """

    name: str
    variables: dict[str, str]
    saved: str = ""
    login: str = ""


_DEAD = f"http://ann:{OTHER}@127.0.0.1:9"
PLACES = (
    Place(name="plain", variables={"HF_TOKEN": HUB_TOKEN}),
    Place(name="quoted", variables={"HF_TOKEN": f'"{OTHER}-quoted"'}),
    Place(name="two-lines", variables={"HF_TOKEN": f"{OTHER}-one\n{OTHER}-two"}),
    Place(name="not-ascii", variables={"HUGGING_FACE_HUB_TOKEN": f"{OTHER}-ünï"}),
    Place(name="file-of-two-lines", variables={}, saved=f"{OTHER}-one\n'{OTHER}-two'\n"),
    Place(name="file-and-variable", variables={"HF_TOKEN": HUB_TOKEN}, saved=f"{OTHER}-saved"),
    Place(name="endpoint", variables={"HF_TOKEN": HUB_TOKEN}, login=f"ann:{OTHER}@"),
    Place(
        name="proxies",
        variables={
            "HTTP_PROXY": _DEAD, "HTTPS_PROXY": _DEAD, "http_proxy": _DEAD, "NO_PROXY": "", "no_proxy": "",
        },
    ),
    Place(
        name="socks-proxy",
        variables={"ALL_PROXY": f"socks5h://ann:{OTHER}%40x@127.0.0.1:9", "NO_PROXY": "", "no_proxy": ""},
    ),
)  # fmt: skip

_IN_EVERY_RUN = {"plain", "two-lines", "file-and-variable", "proxies"}


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        files = checkpoint_files(unet_bytes=1000)
        server.accounts.append(Account(name="ann", token=HUB_TOKEN))
        server.add(Repo(repo_id="acme/open", files=files))
        server.add(Repo(repo_id="acme/gated", files=files, gated="auto", readers=("nobody",)))
        yield server


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_package.write(tmp_path_factory.mktemp("packages") / "toy")


class Watch:
    """Reads the command lines of a process's descendants, again and again."""

    def __init__(self, root: int) -> None:
        self._root = root
        self.lines: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            parents: dict[int, int] = {}
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    after = (folder / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                parents[int(folder.name)] = int(after[1])
            for pid in parents:
                above = pid
                while above and above != self._root:
                    above = parents.get(above, 0)
                if above:
                    try:
                        self.lines.add(Path(f"/proc/{pid}/cmdline").read_text(errors="replace"))
                    except OSError:
                        continue


def commands(hub: HubServer, package: Path, checkpoint: Path) -> list[tuple[str, ...]]:
    address = hub.endpoint.replace("://", f"://ann:{OTHER}@")
    image = ("--seed", "5", "--steps", "3", "--provider", "cpu")
    return [
        ("doctor", "--only", "hub", "--json"),
        ("doctor", "--only", "hub", "--report"),
        ("doctor", "--only", "hub"),
        ("doctor", "--only", "hub", "--for", "convert", "acme/gated", "--json"),
        ("whoami", "--json"),
        ("whoami",),
        ("download", "acme/open", "--json"),
        ("download", "acme/gated"),
        ("download", "acme/absent"),
        ("download", f"{address}/acme/open?token={OTHER}"),
        ("convert", f"{address}/acme/open", "--dry-run"),
        ("convert", "acme/open", "--dry-run", "--json"),
        (
            "convert",
            str(checkpoint),
            "-o",
            "package",
            "--target",
            "cpu",
            "--no-verify",
            "--json",
            "--overwrite",
        ),
        ("verify", "package", "--json"),
        ("generate", str(package), f"a cat {HUB_TOKEN} https://x/?token={OTHER}", *image, "--json"),
        ("generate", str(package), "--from", "toy-5.png", "--steps", "2", "--provider", "cpu"),
        ("generate", str(package), "a cat", *image, "--scheduler", HUB_TOKEN),
        ("generate", f"{address}/acme/open", "a cat"),
        ("smoke-test", str(package), "--steps", "2", "--json"),
        ("benchmark", str(package), "--steps", "2", "--runs", "1", "--json"),
        ("login", HUB_TOKEN),
        ("login", "--token-stdin"),
        ("logout",),
        (HUB_TOKEN,),
        ("download", f"--{HUB_TOKEN}"),
    ]


@pytest.mark.parametrize(
    ("place", "debugging"),
    [
        (PLACES[0], ""),
        *(  # debugging shows all and more
            pytest.param(place, "1", marks=() if place.name in _IN_EVERY_RUN else pytest.mark.robustness)
            for place in PLACES
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Place) else value,
)
def test_no_verb_lets_a_token_out(
    hub: HubServer,
    package: Path,
    tiny_checkpoint: Path,
    graph_cache: Path,
    tmp_path: Path,
    place: Place,
    debugging: str,
) -> None:
    home = tmp_path / "home"
    (home / "hf").mkdir(parents=True)
    (home / "caches" / "sdsetup").mkdir(parents=True)
    (home / "caches" / "sdsetup" / "graphs").symlink_to(graph_cache)
    endpoint = hub.endpoint.replace("://", f"://{place.login}")
    machine = Machine(endpoint=endpoint, home=home)
    environment = {**place.variables, "SDSETUP_DEBUG": debugging, "XDG_STATE_HOME": str(home / "state")}
    said = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Machine, "environment", _with(Machine.environment, environment))
        shell = None
        for arguments in commands(hub, package, tiny_checkpoint):
            if place.saved:
                (home / "hf" / "token").write_text(place.saved, encoding="utf-8")
            done = machine.run(*arguments, stdin=f"{OTHER} with spaces\n")
            assert "internal error" not in done.stderr, done.stderr
            if shell is None:
                shell = machine._shell
                watch = Watch(shell.pid)
            said[" ".join(arguments)] = done.stdout + done.stderr
        watch.end()
        machine._shell = None
        rest = shell.communicate(timeout=60)
    (home / "hf" / "token").unlink(missing_ok=True)
    said |= {"output beside the streams": "".join(rest), "command lines": "\n".join(watch.lines)}
    said |= {
        str(path): path.read_bytes().decode("latin-1")
        for path in home.rglob("*")
        if path.is_file() and not path.is_symlink() and path.suffix not in (".onnx", ".onnx_data")
    }
    found = {where: text for where, text in said.items() if PLANTED in text.casefold()}
    assert not found, {
        where: text[max(0, text.casefold().find(PLANTED) - 200) :][:400] for where, text in found.items()
    }
    assert len(list(home.glob("*.png"))) == 2
    assert (home / "package" / "manifest.json").is_file()


def _with(environment, more: dict[str, str]):
    def changed(self: Machine, **extra: str) -> dict[str, str]:
        return {**environment(self, **extra), **more}

    return changed
