"""The report: one file that loads nothing, escapes what it is told, and is written for failures too."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from conversions.events import Finished, Notice, Started
from sdsetup.cli.app import main
from sdsetup.report_page import Outcome, RunRecord, recording, write
from sdsetup.report_page.facts import without_person
from sdsetup.report_page.memory_chart import draw
from sdsetup.report_page.record import Task
from sdsetup.report_page.write import page

VOID = {"meta", "img", "line", "rect", "polygon", "polyline", "br"}


class _Checked(HTMLParser):
    """Sees that elements are closed in order, and collects what a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.headings: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_startendtag(self, tag: str, attrs: object) -> None:  # noqa: ARG002 - html.parser's signature
        assert tag in VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in {"h1", "h2"}:
            self.headings.append(data)


def _checked(text: str) -> _Checked:
    parser = _Checked()
    parser.feed(text)
    assert not parser.open
    assert all(address.startswith("data:image/png;base64,") for address in parser.addresses)
    assert not re.search(r"url\(|@import|<script", text)
    return parser


def _record() -> RunRecord:
    return RunRecord(
        started=0.0,
        seconds=12.0,
        tasks=[Task(label="unet: <b>writing</b>", began=0.5, ended=9.0), Task(label="torn", began=9.0)],
        notices=["a token: hf_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef", f"in {Path.home() / 'models'}"],
        memory=[(0.0, 10**8), (6.0, 10**9), (12.0, 3 * 10**8)],
    )


def test_what_it_is_told_is_escaped_and_nothing_of_the_person_is_in_it() -> None:
    text = page(Outcome(command="convert", model="<script>x</script>", problem="no <disk>"), _record())
    parser = _checked(text)
    assert parser.headings[0] == "<script>x</script>"
    assert "no &lt;disk&gt;" in text
    assert "hf_ABC" not in text
    assert str(Path.home()) not in text or len(str(Path.home())) <= 3
    assert "interrupted" in text
    assert without_person(str(Path.home() / "x")).endswith("x")


def test_the_chart_reaches_from_nothing_to_the_peak_and_names_both() -> None:
    drawn = draw(_record(), planned_bytes=2 * 10**9)
    _checked(drawn)
    points = re.search(r'class="line" points="([^"]+)"', drawn)
    assert points is not None
    heights = [float(point.split(",")[1]) for point in points[1].split()]
    assert heights.index(min(heights)) == 1  # the peak is the second sample
    assert ">planned<" in drawn
    assert draw(RunRecord(started=0.0)) == ""


def test_a_recording_holds_tasks_notices_and_memory() -> None:
    seen = []
    with recording(seen.append) as (listener, record):
        listener(Started(task="a", label="first"))
        listener(Finished(task="a", note="good"))
        listener(Notice(text="said"))
        listener(Started(task="b", label="second"))
    assert [(task.label, task.note, task.ended is None) for task in record.tasks] == [
        ("first", "good", False),
        ("second", "", True),
    ]
    assert record.notices == ["said"]
    assert record.peak_bytes > 10**6
    assert len(seen) == 4


def test_it_is_written_whole_over_an_older_one(tmp_path: Path) -> None:
    place = tmp_path / "new" / "report.html"
    for model in ("one", "two"):
        write(place, Outcome(command="install", model=model), _record())
    assert "<h1>two</h1>" in place.read_text("utf-8")
    assert [path.name for path in place.parent.iterdir()] == ["report.html"]


@pytest.mark.skipif(sys.platform == "win32", reason="slow under Wine")
def test_convert_writes_it_with_numbers_and_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["convert", "demo", "--target", "cpu", "--reference", "graph", "--report", "r.html"]
    assert main(arguments) == 0
    text = (tmp_path / "r.html").read_text("utf-8")
    parser = _checked(text)
    assert parser.headings[1:4] == ["Image", "Plan and what happened", "Parity"]
    assert "VRAM is a forecast for one image of" in text
    assert len(parser.addresses) == 1
    assert "PyTorch was not asked" in text
    # beside the submodels' names
    assert len(re.findall(r'</th>\s*<td class="good">ok</td>', text)) == 4
    assert "quantisation" not in text  # nothing is quantised


@pytest.mark.skipif(sys.platform == "win32", reason="slow under Wine")
def test_a_failure_is_reported_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    from sdsetup import demo

    shutil.copytree(demo.checkpoint_path(), tmp_path / "torn")
    weights = tmp_path / "torn" / "vae" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-200:] = b"\xff" * 200  # NaN in float16
    weights.write_bytes(content)
    assert main(["convert", "torn", "--target", "cpu", "--reference", "graph"]) == 1
    said = capsys.readouterr().err
    assert "packages/torn-cpu-fp16-report.html" in said.replace("\n", "").replace("\\", "/")
    text = (tmp_path / "packages" / "torn-cpu-fp16-report.html").read_text("utf-8")
    assert '<li class="bad"><span class="word">Failed.</span>' in text


@pytest.mark.robustness  # two conversions
@pytest.mark.skipif(sys.platform == "win32", reason="slow under Wine")
def test_a_package_s_report_stays_where_nothing_is_made_or_making_it_anew_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    from sdsetup import demo

    shutil.copytree(demo.checkpoint_path(), tmp_path / "mine")
    common = ["--target", "cpu", "--reference", "graph", "--no-smoke-test"]
    assert main(["convert", "mine", *common]) == 0
    place = tmp_path / "packages" / "mine-cpu-fp16-report.html"
    good = place.read_text("utf-8")

    assert main(["convert", "mine", *common]) == 1  # it is there
    assert main(["install", "mine"]) == 0  # the image alone is made
    assert "packages/mine-cpu-fp16-report.html" in capsys.readouterr().err.replace("\n", "")
    assert place.read_text("utf-8") == good

    weights = tmp_path / "mine" / "vae" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-200:] = b"\xff" * 200  # NaN in float16
    weights.unlink()  # the package's file is a link to it
    weights.write_bytes(content)
    assert main(["convert", "mine", *common, "--overwrite"]) == 1
    assert place.read_text("utf-8") == good
    failed = place.with_name("mine-cpu-fp16-failed-report.html").read_text("utf-8")
    assert '<span class="word">Failed.</span>' in failed
    assert sorted(path.name for path in place.parent.glob("*.html")) == [
        "mine-cpu-fp16-failed-report.html",
        "mine-cpu-fp16-report.html",
    ]


@pytest.mark.robustness
@pytest.mark.skipif(sys.platform == "win32", reason="starts Chromium as Linux has it")
def test_it_is_accessible_and_fits_a_phone_in_a_real_browser(tmp_path: Path) -> None:
    browser, npm = shutil.which("chromium"), shutil.which("npm")
    if browser is None or npm is None:
        pytest.skip("needs chromium and npm")
    subprocess.run([npm, "pack", "--silent", "axe-core"], cwd=tmp_path, check=True, capture_output=True)
    (archive,) = tmp_path.glob("axe-core-*.tgz")
    shutil.unpack_archive(archive, tmp_path)
    axe = (tmp_path / "package" / "axe.min.js").read_text("utf-8")
    text = page(Outcome(command="convert", model="demo", problem="none"), _record())
    # The page itself allows no script; this copy does, for the look at it.
    text = re.sub(r"<meta http-equiv[^>]*>", "", text)
    look = (
        "axe.run().then(found => { document.title = JSON.stringify({"
        "violations: found.violations.map(each => each.id + ' ' + each.nodes[0].html),"
        "charts: [...document.querySelectorAll('svg')].filter(each => each.getBoundingClientRect().width)"
        ".map(each => `${each.getAttribute('class')} ${each.parentElement.scrollWidth <= innerWidth}`),"
        "wide: document.documentElement.scrollWidth > window.innerWidth}) })"
    )
    here = {**os.environ, "HOME": str(tmp_path)}
    copy = tmp_path / "copy.html"
    copy.write_text(text.replace("</body>", f"<script>{axe}</script><script>{look}</script></body>"), "utf-8")
    for scheme in ("0", "1"):  # dark, light
        answer = subprocess.run(
            [
                *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,1000"),
                *(f"--blink-settings=preferredColorScheme={scheme}", "--virtual-time-budget=10000"),
                *("--dump-dom", copy.as_uri()),
            ],
            capture_output=True, text=True, check=False, timeout=120, env=here,
        )  # fmt: skip
        title = re.search(r"<title>([^<]*)</title>", answer.stdout)
        assert title is not None, answer.stderr
        assert title[1] == '{"violations":[],"charts":["phone true"],"wide":false}'

    whole = tmp_path / "whole.html"
    whole.write_text(page(Outcome(command="convert", model="demo", problem="none"), _record()), "utf-8")
    for width in (1200, 500):
        screenshot = tmp_path / f"{width}.png"
        answer = subprocess.run(
            [
                *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"),
                *(f"--window-size={width},900", f"--screenshot={screenshot}", whole.as_uri()),
            ],
            capture_output=True, text=True, check=False, timeout=120, env=here,
        )  # fmt: skip
        assert "CONSOLE" not in answer.stderr
        with Image.open(screenshot) as seen:
            assert seen.size == (width, 900)
            assert len(seen.convert("RGB").getcolors(1 << 24) or ()) > 20
