"""``FILE[:WEIGHT]`` on all systems."""

from __future__ import annotations

from pathlib import Path

import pytest

from conversions.errors import ConversionError
from conversions.weights.lora.request import parse_request


@pytest.mark.parametrize(
    ("text", "file", "weight"),
    [
        ("style.safetensors", "style.safetensors", 1.0),
        ("style.safetensors:0.8", "style.safetensors", 0.8),
        ("style.safetensors:-1", "style.safetensors", -1.0),
        ("style:0.8", "style", 0.8),
        ("1:0.5", "1", 0.5),
        ("a/b c.safetensors:1e-1", "a/b c.safetensors", 0.1),
        (r"C:\loras\x.safetensors", r"C:\loras\x.safetensors", 1.0),
        (r"C:\loras\x.safetensors:0.8", r"C:\loras\x.safetensors", 0.8),
        ("C:/loras/x.safetensors:0.8", "C:/loras/x.safetensors", 0.8),
        ("C:x.safetensors", "C:x.safetensors", 1.0),
        ("C:x.safetensors:0.5", "C:x.safetensors", 0.5),
        ("/a:b/x.safetensors", "/a:b/x.safetensors", 1.0),
    ],
)
def test_file_and_weight(text, file, weight):
    request = parse_request(text)
    assert (str(request.path), request.weight) == (str(Path(file)), weight)


@pytest.mark.parametrize("weight", ["", "much", "nan", "inf", "0,8", "1.0.0", "1e39", "-4e38"])
def test_a_weight_that_is_no_number_is_refused(weight):
    with pytest.raises(ConversionError) as caught:
        parse_request(f"style.safetensors:{weight}")
    assert caught.value.code == "lora.weight"
    assert "style.safetensors:0.8" in caught.value.hint


@pytest.mark.skipif(__import__("os").name == "nt", reason="Windows knows no colons in names")
def test_a_file_that_is_there_is_taken_whole(tmp_path):
    path = tmp_path / "style:2"
    path.touch()
    assert parse_request(str(path)).path == path
