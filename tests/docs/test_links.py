"""Links between the project's pages lead somewhere: files exist, and so do the headings that are named."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="the tests there have no sources, and links lead to some"
)

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "tests/**/*.md", "sdsetup/**/*.md")
    for path in ROOT.glob(pattern)
)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`[^`\n]*`|^ {4}.*$", re.MULTILINE)


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub names them."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#{1,6} (.+)$", _FENCE.sub("", text), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


def broken(page: Path, root: Path) -> Iterator[str]:
    """Yield the links of a page that lead nowhere, or out of the project."""
    for link in _LINK.findall(_CODE.sub("", _FENCE.sub("", page.read_text("utf-8")))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        inside = target.exists() and target.is_relative_to(root.resolve())
        if not inside or (anchor and anchor not in anchors(target.read_text("utf-8"))):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert not list(broken(page, ROOT))


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# One `code` heading\n\n## One `code` heading\n", "utf-8")
    page = tmp_path / "page.md"
    right = "[a](there.md) [b](there.md#one-code-heading) [c](there.md#one-code-heading-1) [d](#here)"
    wrong = "[e](gone.md) [f](there.md#gone) [g](#gone) [h](../there.md)"
    unread = "[i](https://example.org/gone) `[j](gone.md)`\n\n    [k](gone.md)\n"
    page.write_text(f"{right}\n\n# Here\n\n{wrong}\n{unread}", "utf-8")
    assert list(broken(page, tmp_path)) == ["gone.md", "there.md#gone", "#gone", "../there.md"]
