from __future__ import annotations

from conversions.checkpoint.lfs_pointer import is_pointer_file, pointer_error
from conversions.checkpoint.memory import Memory

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12345\n"
FIRST_LINE = POINTER.partition(b"\n")[0]


def test_only_a_small_file_that_begins_as_a_pointer_is_one() -> None:
    contents = {
        "pointer": POINTER,
        "short": FIRST_LINE,
        "long": POINTER + bytes(1023 - len(POINTER)),
        "too long": POINTER + bytes(1024 - len(POINTER)),
        "cut": FIRST_LINE[:-1],
        "other": b" " * 100,
        "later": b" " + POINTER,
        "empty": b"",
    }
    storage = Memory("files", contents)
    found = {name for name in contents if is_pointer_file(storage, name)}
    assert found == {"pointer", "short", "long"}


def test_the_error_names_the_size_of_the_file_that_is_missing() -> None:
    for content in (POINTER, POINTER.replace(b"\n", b"\r\n")):
        error = pointer_error("unet/model.safetensors", content)
        assert error.code == "checkpoint.lfs_pointer"
        assert "unet/model.safetensors is a git-lfs pointer" in error.message
        assert "the file of 12,345 bytes, not" in error.message
        assert "git lfs pull" in (error.hint or "")
    assert "the address of the file, not the file." in pointer_error("x", FIRST_LINE).message
