"""What errors of the system mean to a person, and how they are found behind those of libraries."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from sdsetup import os_errors

# What each number means: names of the module errno, and numbers of Windows.
MEANT = {
    "disk.full": ("ENOSPC", (39, 112)),
    "disk.quota": ("EDQUOT", (1295,)),
    "os.too_many_files": ("EMFILE ENFILE", (4,)),
    "os.name_too_long": ("ENAMETOOLONG", (111, 206)),
    "os.file_too_large": ("EFBIG", (223,)),
    "os.read_only": ("EROFS", (19, 6009)),
    "os.in_use": ("EBUSY ETXTBSY EDEADLK ENOLCK", (32, 33, 170, 1224)),
    "os.not_permitted": ("EACCES EPERM", (5, 65, 1314)),
    "os.gone": ("ENOENT", (2, 3)),
    "os.in_the_way": ("EEXIST EISDIR ENOTDIR ENOTEMPTY", (80, 183, 145, 267)),
    "os.bad_name": ("EILSEQ ELOOP", (123, 161, 1113, 1921)),
    "os.no_answer": (
        (
            "EIO ESTALE ENODEV ENXIO EREMOTEIO ENOTCONN ESHUTDOWN ENOLINK ECOMM EHOSTDOWN EHOSTUNREACH "
            "ENETDOWN ENETUNREACH ETIMEDOUT ECONNRESET ECONNABORTED ECONNREFUSED EBADMSG EUCLEAN ENOMEDIUM "
            "EBADF EPROTO"
        ),
        (21, 23, 27, 31, 51, 53, 55, 59, 64, 67, 121, 483, 1117, 1167, 1231, 1232, 1392, 1450),
    ),
    "os.not_supported": (
        "ENOTSUP EOPNOTSUPP ENOSYS EXDEV EMLINK EINVAL EOVERFLOW ESPIPE",
        (1, 17, 50, 87, 1142),
    ),
    "os.no_memory": ("ENOMEM EAGAIN ENOBUFS", (8, 14, 1455, 1816)),
}


class WindowsLikeError(OSError):
    """An error as Windows raises it: the number of errno is a guess."""

    def __init__(self, winerror: int) -> None:
        super().__init__(errno.EINVAL, "refused", "C:\\x")
        self.winerror = winerror


def code_of(error: OSError) -> str:
    return os_errors.explain(error).code


@pytest.mark.parametrize("code", MEANT)
def test_numbers_mean_what_they_are_listed_for(code: str) -> None:
    names, winerrors = MEANT[code]
    for name in names.split():
        if hasattr(errno, name):
            number = getattr(errno, name)
            assert code_of(OSError(number, os.strerror(number))) == code, name
    assert [code_of(WindowsLikeError(number)) for number in winerrors] == [code] * len(winerrors)


def test_all_numbers_are_listed() -> None:
    listed = {name for names, _ in MEANT.values() for name in names.split()}
    assert os_errors.covered() == tuple(
        sorted({getattr(errno, name) for name in listed if hasattr(errno, name)})
    )
    assert os_errors.covered_winerrors() == tuple(
        sorted(number for _, each in MEANT.values() for number in each)
    )


def test_places_stand_in_the_message() -> None:
    full = errno.ENOSPC
    assert os_errors.explain(OSError(full, "x")).message == "the disk is full."
    assert os_errors.explain(OSError(full, "x", "/a")).message == "the disk is full: /a."
    assert os_errors.explain(OSError(full, "x", b"/a", None, "/b")).message == "the disk is full: /a and /b."
    assert os_errors.explain(OSError(full, "x", 3)).message == "the disk is full."


def test_an_unheard_of_number_is_told_in_the_system_s_words() -> None:
    for error, said in (
        (OSError(9999, "Strange", "/a"), "the system refused to go on at /a: Strange."),
        (OSError(9999, "Strange"), "the system refused to go on: Strange."),
        (OSError("words alone"), "the system refused to go on: words alone."),
        (OSError(), "the system refused to go on: OSError."),
    ):
        explained = os_errors.explain(error)
        assert (explained.code, explained.message) == ("os.refused", said)
        assert explained.hint == "run the same command again."


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("I/O error (os error 28)", errno.ENOSPC),
        ("[Errno 24] anything", errno.EMFILE),
        ("open file failed, errcode = 5", errno.EIO),
        ("System error number 12", errno.ENOMEM),
        *(
            (os.strerror(getattr(errno, name)), getattr(errno, name))
            for name in ("ENOSPC", "EMFILE", "EFBIG", "EIO")
        ),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="numbers are those of Linux")
def test_numbers_and_words_in_messages_of_libraries_are_read(text: str, number: int) -> None:
    found = os_errors.find(RuntimeError(f"It failed: {text}."))
    assert found is not None
    assert found.errno == number


def test_nothing_else_is_taken_for_an_error_of_the_system() -> None:
    for text in ("", "Permission denied", "os error 28", "(os error 99999)", "Not a directory"):
        assert os_errors.find(RuntimeError(text)) is None


def test_what_stands_behind_an_error_counts() -> None:
    full = OSError(errno.ENOSPC, "x", "/there")
    outer = RuntimeError("outer")
    outer.__cause__ = ValueError("middle")
    outer.__cause__.__context__ = full
    assert os_errors.find(outer) is full
    full.__context__ = outer  # in a circle
    assert os_errors.find(outer) is full
    assert os_errors.find(ExceptionGroup("several", [ValueError("a"), full])) is full
    bare = OSError("without a number")
    behind = RuntimeError("x")
    behind.__cause__ = bare
    assert os_errors.find(behind) is bare
    bare.__cause__ = OSError(errno.EIO, "with one")
    assert os_errors.find(behind) is bare.__cause__
    of_windows = WindowsLikeError(39)
    of_windows.errno = None
    assert os_errors.find(of_windows) is of_windows
    memory = os_errors.find(MemoryError())
    assert memory is not None
    assert memory.errno == errno.ENOMEM


RAISED = """
import resource, sys
from sdsetup import os_errors
soft, hard = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
os_errors.allow_many_files()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
@pytest.mark.parametrize(
    ("soft", "hard", "after"), [(200, 1000, 1000), (200, 4097, 4096), (4096, 4100, 4096), (4099, 4100, 4099)]
)
def test_the_limit_of_open_files_is_raised_as_far_as_is_needed(soft: int, hard: int, after: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RAISED, str(soft), str(hard)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(after), str(hard)]
