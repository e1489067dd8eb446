"""Ways to break a small real environment, each as a program, a cleaner or a person does it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from sdsetup.machine.facts import Questions
from sdsetup.machine.readers import packages

ROOT = Path(__file__).parents[3]


@dataclass(kw_only=True)
class Place:
    """An environment with the variables and the folder that its commands are started with."""

    environment: Path
    work: Path
    variables: dict[str, str]
    package: Path

    @property
    def site(self) -> Path:
        return next((self.environment / "lib").glob("python3.*")) / "site-packages"

    @property
    def python(self) -> str:
        return str(self.environment / "bin" / "python")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.python, "-m", "sdsetup", *arguments], env=self.variables, cwd=self.work,
            capture_output=True, text=True, errors="replace", timeout=300, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def find(self, pattern: str) -> Path:
        return next(iter(sorted(self.site.glob(pattern))))

    def remove(self, *patterns: str) -> None:
        for pattern in patterns:
            found = list(self.site.glob(pattern))
            assert found, pattern
            for path in found:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def rewrite(self, pattern: str, change: Callable[[bytes], bytes]) -> None:
        """Replace a file by a new one: the old one is shared with the environment that runs the tests."""
        path = self.find(pattern)
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(change(content))


def make(folder: Path, package: Path, *, converting: bool = False) -> Place:
    """Make an environment that holds what sdsetup needs, as links to the files of the running one."""
    import venv

    environment, work, home = folder / "environment", folder / "work", folder / "home"
    venv.create(environment, with_pip=False, symlinks=True)
    work.mkdir()
    home.mkdir()
    installed = packages.read(Questions(output=folder))
    missing = {name for name in installed.missing if name in installed.core}
    assert not missing, f"the environment that runs the tests lacks {missing}; python -m tests brings it"
    wanted = {*installed.core, "pip"}
    if converting:
        wanted = {name for name in installed.versions if name != "sdsetup"}
    cache = os.environ.get("PIP_CACHE_DIR") or str(Path("~/.cache/pip").expanduser())
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().endswith("_PROXY") and not name.startswith(("HF_", "PYTHON", "SDSETUP", "XDG_"))
    }
    variables = {
        **kept,
        "HOME": str(home),
        "PIP_CACHE_DIR": cache,
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
    }
    place = Place(environment=environment, work=work, variables=variables, package=package)
    for name in wanted:
        for file in metadata.distribution(name).files or ():
            source = Path(str(file.locate()))
            if ".." in file.parts or not source.is_file():
                continue
            target = place.site / file
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                target.hardlink_to(source)
            except OSError:
                shutil.copy2(source, target)
    return place


@dataclass(frozen=True, kw_only=True)
class Break:
    """One broken environment.

    Attributes:
        name: What is wrong with it.
        act: Breaks it.
        mended: What the doctor says helps; False where only the person can.
        quick: It is tried with every change, not only by the long form.
    """

    name: str
    act: Callable[[Place], None]
    mended: bool = True
    quick: bool = False
    converting: bool = False
    words: tuple[str, ...] = field(default=())


def _gone(*patterns: str) -> Callable[[Place], None]:
    return lambda place: place.remove(*patterns)


def _cut(pattern: str) -> Callable[[Place], None]:
    return lambda place: place.rewrite(pattern, lambda content: content[: len(content) // 2])


def _zeros(pattern: str) -> Callable[[Place], None]:
    def act(place: Place) -> None:
        place.rewrite(pattern, lambda content: bytes(len(content)))
        later = place.find(pattern).stat().st_mtime + 60
        os.utime(place.find(pattern), (later, later))

    return act


def _renamed(name: str, version: str) -> Callable[[Place], None]:
    def act(place: Place) -> None:
        info = place.find(f"{name}-*.dist-info")
        old = info.name.removesuffix(".dist-info").partition("-")[2]
        info.rename(info.with_name(f"{name}-{version}.dist-info"))
        for file in ("METADATA", "RECORD"):
            place.rewrite(
                f"{name}-{version}.dist-info/{file}",
                lambda content: content.replace(old.encode(), version.encode()),
            )

    return act


def _with(act: Callable[[Place], None] | None = None, **variables: str) -> Callable[[Place], None]:
    def both(place: Place) -> None:
        if act is not None:
            act(place)
        place.variables |= {
            name: value.format(work=place.work, root=ROOT) for name, value in variables.items()
        }

    return both


def _foreign(files: dict[str, str], folder: str = "foreign") -> Callable[[Place], None]:
    def act(place: Place) -> None:
        for name, content in files.items():
            path = place.work / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        if folder:
            place.variables["PYTHONPATH"] = os.pathsep.join([str(place.work / folder), str(ROOT)])

    return act


def _pip_file(text: str) -> Callable[[Place], None]:
    def act(place: Place) -> None:
        file = place.work / "pip.conf"
        file.write_text(text)
        place.variables["PIP_CONFIG_FILE"] = str(file)

    return act


def _all(*acts: Callable[[Place], None]) -> Callable[[Place], None]:
    def act(place: Place) -> None:
        for each in acts:
            each(place)

    return act


def _two_versions(place: Place) -> None:
    shutil.copytree(place.find("platformdirs-*.dist-info"), place.site / "platformdirs-4.3.6.dist-info")


def _two_flavours(place: Place) -> None:
    info = place.site / "onnxruntime_openvino-1.24.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-openvino\nVersion: 1.24.1\n")
    (info / "INSTALLER").write_text("pip\n")
    listed = (f"{info.name}/{file},,\n" for file in ("METADATA", "INSTALLER", "RECORD"))
    (info / "RECORD").write_text(f"onnxruntime/__init__.py,,\n{''.join(listed)}")
    place.rewrite("onnxruntime/__init__.py", lambda _: b"__version__ = '1.24.1'\n")


def _everything_gone(place: Place) -> None:
    shutil.rmtree(place.site)
    place.site.parent.joinpath("site-packages").mkdir()


RAISES = "raise ImportError('this is the package of another program')\n"
_TYPER = ("typer", "typer-*.dist-info")
_RICH = ("rich", "rich-*.dist-info")
_PIP = ("pip", "pip-*.dist-info")

BREAKS = (
    Break(name="nothing is wrong", act=_all(), quick=True),
    # packages
    Break(name="typer's folder is gone", act=_gone("typer")),
    Break(name="typer is gone", act=_gone(*_TYPER)),
    Break(name="a module of rich is gone", act=_gone("rich/console.py")),
    Break(name="a module of huggingface_hub is cut short", act=_cut("huggingface_hub/hf_api.py")),
    Break(name="a module of numpy holds zeros", act=_zeros("numpy/__init__.py")),
    Break(name="a package that rich needs is gone", act=_gone("mdurl", "mdurl-*.dist-info")),
    Break(name="a package that httpx2 needs is gone", act=_gone("idna", "idna-*.dist-info")),
    Break(name="an extra of a package is gone", act=_gone("socksio", "socksio-*.dist-info")),
    Break(name="a description is gone", act=_gone("click-*.dist-info")),
    Break(name="a list of files is gone", act=_gone("filelock-*.dist-info/RECORD")),
    Break(name="a METADATA is gone", act=_gone("platformdirs-*.dist-info/METADATA")),
    Break(name="a description is empty", act=_gone("tqdm-*.dist-info/*")),
    Break(name="two versions are installed over each other", act=_two_versions),
    Break(name="a package is too old", act=_renamed("huggingface_hub", "1.0.0")),
    Break(name="numpy is too old", act=_renamed("numpy", "1.20.0")),
    Break(name="safetensors' library is gone", act=_gone("safetensors/*.so")),
    Break(name="numpy's library is cut short", act=_cut("numpy/_core/_multiarray_umath*.so")),
    Break(name="tokenizers' library is gone", act=_gone("tokenizers/*.so")),
    Break(name="pillow's library is gone", act=_gone("PIL/_imaging.*.so")),
    Break(name="protobuf's folder is gone", act=_gone("google")),
    Break(name="psutil is gone", act=_gone("psutil", "psutil-*.dist-info")),
    Break(name="packaging is gone", act=_gone("packaging", "packaging-*.dist-info")),
    Break(name="packaging and pip are gone", act=_gone("packaging", "packaging-*.dist-info", *_PIP)),
    Break(name="three folders are gone", act=_gone("rich", "onnx", "PIL")),
    Break(name="everything is gone", act=_everything_gone),
    # ONNX Runtime
    Break(name="ONNX Runtime is gone", act=_gone("onnxruntime", "onnxruntime-*.dist-info")),
    Break(name="ONNX Runtime's library is gone", act=_gone("onnxruntime/capi/*.so")),
    Break(name="ONNX Runtime's library is cut short", act=_cut("onnxruntime/capi/onnxruntime_pybind11_state*.so")),
    Break(name="ONNX Runtime's description is gone", act=_gone("onnxruntime-*.dist-info")),
    Break(name="ONNX Runtime's folder is gone", act=_gone("onnxruntime")),
    Break(name="two flavours of ONNX Runtime", act=_two_flavours),
    # pip
    Break(name="pip is gone", act=_gone(*_PIP)),
    Break(name="pip is torn and typer gone", act=_gone("pip/_vendor", *_TYPER)),
    Break(name="a module of pip is gone, and rich", act=_gone("pip/_internal/operations/install/wheel.py", *_RICH)),
    # variables and settings
    Break(name="PYTHONPATH brings typer", act=_foreign({"typer/__init__.py": RAISES, "rich.py": RAISES}), quick=True),
    Break(
        name="PYTHONPATH brings numpy and a module of the standard library",
        act=_foreign({"numpy.py": RAISES, "dataclasses.py": RAISES, "json/__init__.py": RAISES}),
    ),
    Break(name="PYTHONPATH brings onnxruntime", act=_foreign({"onnxruntime/__init__.py": "__version__ = '1'\n"})),
    Break(name="PYTHONPATH brings what is missing", act=_all(_gone(*_TYPER), _foreign({"typer.py": RAISES}))),
    Break(name="the working folder holds a numpy", act=_foreign({"numpy.py": RAISES, "random.py": RAISES}, "")),
    Break(name="PIP_USER", act=_with(_gone(*_TYPER), PIP_USER="1")),
    Break(name="PIP_TARGET", act=_with(_gone(*_RICH), PIP_TARGET="{work}/elsewhere")),
    Break(name="PIP_PREFIX and PIP_NO_DEPS", act=_with(_gone(*_RICH), PIP_PREFIX="{work}/x", PIP_NO_DEPS="1")),
    Break(
        name="pip.conf says user and target",
        act=_all(_gone(*_TYPER), _pip_file("[install]\nuser = true\ntarget = elsewhere\nno-deps = true\n")),
    ),
    Break(name="pip.conf cannot be read", act=_all(_gone(*_TYPER), _pip_file("no section\n")), mended=False),
    Break(name="no index is allowed", act=_with(_gone(*_TYPER), PIP_NO_INDEX="1", PIP_FIND_LINKS=""), mended=False),
    Break(
        name="the index is not there",
        act=_with(_gone(*_TYPER), PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="0", PIP_FIND_LINKS="",
                  PIP_CONFIG_FILE=os.devnull, PIP_NO_CACHE_DIR="1"),
        mended=False,
    ),
    Break(name="warnings are errors", act=_with(PYTHONWARNINGS="error")),
    Break(name="docstrings are left out", act=_with(PYTHONOPTIMIZE="2")),
    Break(name="a SOCKS proxy that is off", act=_with(ALL_PROXY="socks5h://127.0.0.1:9")),
    Break(name="a proxy of an unknown kind", act=_with(ALL_PROXY="gopher://127.0.0.1:9")),
    Break(name="the Hub's cache is gone", act=_with(HF_HUB_CACHE="/proc/no/such/place"), mended=False),
    Break(name="the folder for temporary files is gone", act=_with(TMPDIR="{work}/no/such")),
    Break(name="a .pth file of another program fails", act=lambda place: (
        place.site / "other.pth").write_text("import no_such_module\n") and None),
    # converting
    Break(name="torch's folder is gone", act=_gone("torch"), converting=True),
    Break(name="a module of torch is gone", act=_gone("torch/nn/functional.py"), converting=True),
    Break(name="a package that torch needs is gone", act=_gone("sympy", "sympy-*.dist-info"), converting=True),
    Break(name="a module of transformers is gone", act=_gone("transformers/models/clip/modeling_clip.py"),
          converting=True),
    Break(name="diffusers is gone", act=_gone("diffusers", "diffusers-*.dist-info"), converting=True),
    Break(name="torch and pip are gone", act=_gone("torch", "torch-*.dist-info", *_PIP), converting=True),
)  # fmt: skip
