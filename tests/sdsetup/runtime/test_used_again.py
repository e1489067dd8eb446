"""The adapters and embeddings of an image that is made again: there, gone, or another file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from conversions.weights.lora.request import AdapterRequest
from sdsetup.runtime.adapters import AppliedAdapter
from sdsetup.runtime.textual_inversion import AppliedEmbedding
from sdsetup.runtime.used_again import UsedAgain, used_again


def file(folder: Path, name: str) -> tuple[str, str]:
    path = folder / name
    path.write_bytes(name.encode())
    return str(path), hashlib.sha256(name.encode()).hexdigest()


def test_files_that_are_the_same_are_used_in_their_order(tmp_path: Path) -> None:
    adapters = [
        AppliedAdapter(path=path, weight=weight, sha256=sha256)
        for weight, (path, sha256) in ((0.5, file(tmp_path, "b")), (-1.0, file(tmp_path, "a")))
    ]
    path, sha256 = file(tmp_path, "cat")
    found = used_again(adapters, [AppliedEmbedding(path=path, token="<cat>", sha256=sha256)])  # noqa: S106
    assert found == UsedAgain(
        adapters=(
            AdapterRequest(path=tmp_path / "b", weight=0.5),
            AdapterRequest(path=tmp_path / "a", weight=-1.0),
        ),
        embeddings=(tmp_path / "cat",),
        remarks=(),
    )
    assert used_again([]) == UsedAgain(adapters=(), embeddings=(), remarks=())


def test_files_that_are_gone_or_changed_are_left_out_and_said(tmp_path: Path) -> None:
    kept, sha256 = file(tmp_path, "kept")
    gone, changed = str(tmp_path / "gone"), file(tmp_path, "changed")[0]
    found = used_again(
        [
            AppliedAdapter(path=gone, weight=0.8, sha256=sha256),
            AppliedAdapter(path=changed, weight=1.0, sha256=sha256),
            AppliedAdapter(path=kept, weight=1.0, sha256=sha256),
        ],
        [
            AppliedEmbedding(path=gone, token="<a>", sha256=sha256),  # noqa: S106
            AppliedEmbedding(path=changed, token="<b>", sha256=sha256),  # noqa: S106
            AppliedEmbedding(path=str(tmp_path), token="<c>", sha256=sha256),  # noqa: S106
        ],
    )
    assert found.adapters == (AdapterRequest(path=Path(kept)),)
    assert found.embeddings == ()
    lost, other, lost_embedding, other_embedding, folder = found.remarks
    assert f"{gone} (weight 0.8), which is gone" in lost
    assert "add --lora FILE:0.8." in lost
    assert f"{changed} (weight 1), which is another file now" in other
    assert f"{gone}, which is gone" in lost_embedding
    assert "add --textual-inversion FILE." in lost_embedding
    assert f"{changed}, which is another file now" in other_embedding
    assert f"{tmp_path}, which is gone" in folder
