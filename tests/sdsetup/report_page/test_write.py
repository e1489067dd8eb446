"""The page, section by section."""

from __future__ import annotations

import base64
import json
import re
import sys
import time
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from conversions.verification.ep_assignment import Placement
from conversions.verification.parity import Parity, ParityReport, SubmodelReport
from sdsetup.disk_space import human_size
from sdsetup.machine import adapters
from sdsetup.report_page.record import RunRecord, Task
from sdsetup.report_page.write import Outcome, page, write
from tests.sdsetup import toy_package

MIB = 2**20
PLAN: Any = SimpleNamespace(
    family="a family",
    options=SimpleNamespace(precision="fp16", target="cpu"),
    source_bytes=40 * MIB,
    copied_bytes=3 * MIB,
    package_bytes=10 * MIB,
    ram_bytes=200 * MIB,
    check_ram_bytes=300 * MIB,
)
RECORD = RunRecord(
    started=time.mktime((2026, 3, 4, 5, 6, 7, 0, 0, -1)),
    seconds=12.4,
    tasks=[Task(label="a <b>", began=0.5, ended=9.25, note="good"), Task(label="torn", began=9.0)],
    notices=["said <this>", "hf_ABCDEFGHIJKLMNOPQRSTUVWXYZ"],
    memory=[(0.0, 100 * MIB), (12.0, 150 * MIB)],
)


@pytest.fixture(autouse=True)
def no_adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "read", lambda: ())


class Tables(HTMLParser):
    """Reads the tables of a page: rows of texts, and their classes, by caption."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: dict[str, list[list[str]]] = {}
        self.kinds: dict[str, list[list[str]]] = {}
        self._caption = ""
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in = tag
        if tag == "tr":
            self.rows[self._caption].append([])
            self.kinds[self._caption].append([])
        elif tag in ("td", "th") and self._caption:
            self.rows[self._caption][-1].append("")
            self.kinds[self._caption][-1].append(dict(attrs).get("class") or "")

    def handle_endtag(self, tag: str) -> None:
        self._in = ""
        if tag == "table":
            self._caption = ""

    def handle_data(self, data: str) -> None:
        if self._in == "caption":
            self._caption = data
            self.rows[data], self.kinds[data] = [], []
        elif self._in in ("td", "th"):
            self.rows[self._caption][-1][-1] += data


def verdicts(text: str) -> list[tuple[str, str, str]]:
    found = re.findall(r'<li class="(\w+)"><span class="word">([^<]*)</span> ([^<]*)</li>', text)
    return [(kind, word, unescape(words)) for kind, word, words in found]


def headings(text: str) -> list[str]:
    return re.findall(r"<h2>([^<]*)</h2>", text)


def submodel(name: str, **changes: Any) -> SubmodelReport:
    made = SubmodelReport(
        submodel=name,
        placement=Placement(provider="Cpu", nodes={"CPUExecutionProvider": 5, "DmlExecutionProvider": 7}),
        finite=True,
        parity=Parity(psnr_db=65.04, gate_db=60.4, max_abs_error=0.00123, cosine=0.99999912),
        quantization_db=None,
        seconds=1.234,
        problems=(),
    )
    return replace(made, **changes)


def report(*submodels: SubmodelReport, **changes: Any) -> ParityReport:
    made = ParityReport(
        provider="Cpu", device="CPU", problems=(), submodels=submodels, reference="float32_graph"
    )
    return replace(made, **changes)


def test_a_run_of_nothing_has_a_head_and_the_machine() -> None:
    bare = RunRecord(started=RECORD.started, seconds=3.6)
    text = page(Outcome(command="install", model="a/b"), bare)
    assert "<title>sdsetup install a/b: done</title>" in text
    assert "<h1>a/b</h1>" in text
    assert '<p class="soft">sdsetup install, 2026-03-04 05:06, 4 s</p>' in text
    assert verdicts(text) == [("open", "Not verified", "in this run.")]
    assert headings(text) == ["Machine"]
    assert "<dt>graphics</dt><dd>none found</dd>" in text
    assert "</style>" in text
    assert len(text) > 2000


@pytest.mark.skipif(sys.platform == "win32", reason="a path of POSIX")
def test_a_failure_is_the_first_verdict() -> None:
    text = page(Outcome(command="convert", model="/x/<m>", plan=PLAN, problem="no <disk>"), RECORD)
    assert "<title>sdsetup convert &lt;m&gt;: failed</title>" in text
    assert "<h1>&lt;m&gt;</h1>" in text
    assert "12 s, a family, fp16 for cpu</p>" in text
    assert verdicts(text)[0] == ("bad", "Failed.", "no <disk>")
    assert headings(text) == [
        *("Plan and what happened", "Memory and time", "Tasks", "Machine", "What was said besides"),
    ]
    assert "<li>said &lt;this&gt;</li>" in text
    assert "hf_ABC" not in text


def test_tasks_are_listed_with_their_times() -> None:
    tables = Tables(page(Outcome(command="convert", model="m"), RECORD))
    assert tables.rows["Tasks with their times"] == [
        ["task", "began", "took", "result"],
        ["a <b>", "0.5 s", "8.8 s", "good"],
        ["torn", "9.0 s", "interrupted", "–"],
    ]
    assert tables.kinds["Tasks with their times"] == [
        ["", "number", "number", ""],
        ["", "number", "number", ""],
        ["", "number", "number", ""],
    ]


def test_tasks_too_short_for_a_row_are_counted() -> None:
    short = [Task(label=f"quick {number}", began=1.0, ended=1.04, note="n") for number in range(2)]
    one = replace(RECORD, tasks=[Task(label="a", began=0.5, ended=9.0), short[0]])
    text = page(Outcome(command="convert", model="m"), one)
    # Nothing that is shown has a result, so there is no column of results.
    assert Tables(text).rows["Tasks with their times"] == [["task", "began", "took"], ["a", "0.5 s", "8.5 s"]]
    assert '<p class="soft">One other task took less than 0.05 s.</p>' in text
    two = page(Outcome(command="convert", model="m"), replace(RECORD, tasks=[*one.tasks, short[1]]))
    assert "2 other tasks took less than 0.05 s each." in two
    all_short = page(Outcome(command="convert", model="m"), replace(RECORD, tasks=short))
    assert "Tasks with their times" not in Tables(all_short).rows
    assert "2 tasks took less than 0.05 s each." in all_short
    torn = page(Outcome(command="convert", model="m"), replace(RECORD, tasks=[Task(label="x", began=12.39)]))
    assert ["x", "12.4 s", "interrupted"] in Tables(torn).rows["Tasks with their times"]


def plan_rows(outcome: Outcome) -> list[list[str]]:
    return Tables(page(outcome, RECORD)).rows["Plan and what happened"]


def test_the_plan_stands_beside_what_happened(tmp_path: Path) -> None:
    failed = Outcome(command="convert", model="m", plan=PLAN)
    assert plan_rows(failed) == [
        ["", "planned", "happened"],
        ["weights read from the checkpoint", "40.0 MiB", "–"],
        ["weights written", "3.0 MiB", "–"],
        ["weights linked", "7.0 MiB", "–"],
        ["graphs and small files", "–", "–"],
        ["peak memory", "200.0 MiB", "150.0 MiB"],
    ]
    folder = toy_package.write(tmp_path / "package")
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    sizes = {name: each["size_bytes"] for name, each in manifest["files"].items()}
    weights = {name: size for name, size in sizes.items() if name.endswith(".onnx_data")}
    name, other = list(weights)[:2]
    for each in (name, other):  # of one file of the checkpoint, as the halves of an autoencoder are
        manifest["files"][each]["size_bytes"] = 5 * MIB
    manifest["linked"] = {each: {"file": "x", "modified_ns": 1} for each in (name, other)}
    toy_package.write_json(folder / "manifest.json", manifest)
    written = sum(size for each, size in weights.items() if each not in (name, other))
    besides = sum(sizes.values()) - sum(weights.values())
    verified = replace(failed, package=folder, report=report(submodel("unet", parity=None)))
    assert plan_rows(verified)[2:] == [
        ["weights written", "3.0 MiB", human_size(written)],
        ["weights linked", "7.0 MiB", "5.0 MiB"],
        ["graphs and small files", "–", human_size(besides)],
        ["peak memory", "300.0 MiB", "150.0 MiB"],
    ]
    text = page(verified, RECORD)
    assert ("good", "Converted.", f"The package: {folder}") in verdicts(text)
    assert "<td></td>" in text  # an empty corner is no heading


def test_verification_is_a_verdict() -> None:
    good = report(submodel("a"), submodel("b"))
    outcome = Outcome(command="convert", model="m", report=good)
    with_what = (
        "Compared with a float32 evaluation of the same graphs on the checkpoint's own weights; "
        "PyTorch was not asked."
    )
    assert verdicts(page(outcome, RECORD)) == [
        ("good", "Verified:", f"all 2 submodels, on CPU. {with_what}"),
    ]
    alone = replace(outcome, report=replace(good, reference=None))
    assert verdicts(page(alone, RECORD)) == [("good", "Verified:", "all 2 submodels, on CPU.")]
    bad = report(submodel("a", problems=("wrong", "odd")), problems=("torn",), reference="pytorch")
    assert verdicts(page(replace(outcome, report=bad), RECORD)) == [
        (
            "bad",
            "Not the same model:",
            "torn; a: wrong; a: odd Compared with PyTorch in float32, on the checkpoint's own weights.",
        ),
    ]


def test_parity_is_a_row_a_submodel(tmp_path: Path) -> None:
    caption = "Parity, size and VRAM of every submodel"
    equal = Parity(psnr_db=float("inf"), gate_db=60, max_abs_error=0.0, cosine=1.0)
    found = report(
        submodel("unet"),
        submodel("text_encoder", parity=equal, problems=("x",)),
        submodel("vae_decoder", parity=None),
    )
    outcome = Outcome(command="convert", model="m", report=found)
    tables = Tables(page(outcome, RECORD))
    assert tables.rows[caption] == [
        ["submodel", "result", "PSNR", "needed", "largest error", "cosine", "size", "VRAM"],
        ["unet", "ok", "65.0 dB", "60 dB", "0.0012", "0.999999", "–", "–"],
        ["text_encoder", "failed", "equal", "60 dB", "0", "1.000000", "–", "–"],
        ["vae_decoder", "ok", "–", "–", "–", "–", "–", "–"],
    ]
    assert tables.kinds[caption][1][:3] == ["", "good", "number"]
    assert tables.kinds[caption][2][:3] == ["", "bad", "number"]
    folder = toy_package.write(tmp_path / "package")
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    manifest["memory"] = {"submodels": {"unet": {"device_bytes": 5 * MIB}}}
    toy_package.write_json(folder / "manifest.json", manifest)
    quantised = report(submodel("unet", quantization_db=41.26), submodel("text_encoder"))
    text = page(replace(outcome, report=quantised, package=folder), RECORD)
    sizes = [(folder / name / "model.onnx_data").stat().st_size for name in ("unet", "text_encoder")]
    assert [row[6:] for row in Tables(text).rows[caption]] == [
        ["size", "VRAM", "quantisation"],
        [human_size(sizes[0]), "5.0 MiB", "41.3 dB"],
        [human_size(sizes[1]), "–", "–"],
    ]
    assert "VRAM is a forecast for one image of 64x64." in text
    nothing = page(replace(outcome, report=report(submodel("unet", parity=None))), RECORD)
    assert "Parity" not in headings(nothing)
    assert "Placement" in headings(nothing)


def test_placement_is_counted_by_provider() -> None:
    measured = Placement(
        provider="DmlExecutionProvider",
        nodes={"DmlExecutionProvider": 9, "CPUExecutionProvider": 1},
        seconds={"DmlExecutionProvider": 3.0, "CPUExecutionProvider": 1.0},
    )
    found = report(submodel("a"), submodel("b", placement=measured))
    rows = Tables(page(Outcome(command="convert", model="m", report=found), RECORD)).rows["Where nodes ran"]
    assert rows == [
        ["submodel", "nodes", "time there", "one run"],
        ["a", "5 on CPU, 7 on Dml", "–", "1.23 s"],
        ["b", "9 on Dml, 1 on CPU", "75.0%", "1.23 s"],
    ]
    assert "Placement" not in headings(page(Outcome(command="convert", model="m", report=report()), RECORD))


@pytest.mark.skipif(sys.platform == "win32", reason="a name that Windows does not allow")
def test_the_first_image_is_in_the_page(tmp_path: Path) -> None:
    path = tmp_path / "a <cat>.png"
    Image.new("RGB", (8, 8)).save(path)
    outcome = Outcome(command="install", model="m", image=path)
    text = page(outcome, RECORD)
    data = base64.b64encode(path.read_bytes()).decode()
    assert f'<img class="small" src="data:image/png;base64,{data}"' in text
    assert 'alt="Image made from the prompt: a &lt;cat&gt;">' in text
    assert "<figcaption>a &lt;cat&gt;</figcaption>" in text
    assert verdicts(text)[-1] == (
        "good",
        "First image passed its check:",
        "it was made in an earlier run.",
    )
    assert verdicts(page(replace(outcome, device="the CPU"), RECORD))[-1][2] == "the CPU."
    assert len(verdicts(page(replace(outcome, problem="x"), RECORD))) == 2
    gone = page(replace(outcome, image=tmp_path / "gone.png"), RECORD)
    assert "<img" not in gone


@pytest.mark.parametrize(("size", "small"), [(49_999, True), (50_000, False)])
def test_small_images_are_shown_larger(tmp_path: Path, size: int, small: bool) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(bytes(size))
    text = page(Outcome(command="install", model="m", image=path), RECORD)
    assert ('<img class="small"' in text) is small


def test_an_older_page_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    for model in ("one", "two"):
        write(path, Outcome(command="install", model=model), RECORD)
    assert "<h1>two</h1>" in path.read_text("utf-8")
    assert [each.name for each in path.parent.iterdir()] == ["report.html"]
    assert b"\r" not in path.read_bytes()
