"""Errors of the operating system, each as one message with the next step.

Every verb ends in ``cli.app``, which comes here; messages that know more (a package's place, the Hub's
cache) are made where more is known. Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sdsetup.errors import SetupError


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """Errors that mean the same to a person.

    Attributes:
        code: Of the SetupError.
        says: The message; ``{place}`` is " PATH" or nothing.
        hint: What to do.
        names: Names in the module errno; not every system has each.
        winerrors: Numbers of Windows. Source: Microsoft, "System Error Codes".
    """

    code: str
    says: str
    hint: str
    names: tuple[str, ...]
    winerrors: tuple[int, ...] = ()


_MANY_FILES = 4096
_HERE = ("", ".")
_AGAIN = "run the same command again"
_KINDS = (
    _Kind(
        code="disk.full",
        says="the disk is full{at}.",
        hint=f"free some space, or choose a folder on another disk, and {_AGAIN}.",
        names=("ENOSPC",),
        winerrors=(39, 112),
    ),
    _Kind(
        code="disk.quota",
        says="your quota of disk space is used up{at}.",
        hint=f"delete files of yours, or choose a folder on another disk, and {_AGAIN}.",
        names=("EDQUOT",),
        winerrors=(1295,),
    ),
    _Kind(
        code="os.too_many_files",
        says="too many files are open at once{at}: the limit of this system or shell is reached.",
        hint=f"raise the limit (ulimit -n 4096) or close other programs, and {_AGAIN}.",
        names=("EMFILE", "ENFILE"),
        winerrors=(4,),
    ),
    _Kind(
        code="os.name_too_long",
        says="a name is too long for this file system{at}.",
        hint="choose a shorter name or a folder with a shorter path.",
        names=("ENAMETOOLONG",),
        winerrors=(111, 206),
    ),
    _Kind(
        code="os.file_too_large",
        says="a file becomes larger than is allowed here{at}.",
        hint=f"raise the limit (ulimit -f unlimited) or choose a disk that takes large files, and {_AGAIN}.",
        names=("EFBIG",),
        winerrors=(223,),
    ),
    _Kind(
        code="os.read_only",
        says="the disk can only be read{at}.",
        hint="choose a folder on another disk.",
        names=("EROFS",),
        winerrors=(19, 6009),
    ),
    _Kind(
        code="os.in_use",
        says="another program is using a file{at}.",
        hint=f"close programs that may have it open (a virus scanner too), and {_AGAIN}.",
        names=("EBUSY", "ETXTBSY", "EDEADLK", "ENOLCK"),
        winerrors=(32, 33, 170, 1224),
    ),
    _Kind(
        code="os.not_permitted",
        says="this user may not read or write there{at}.",
        hint="choose a folder of your own, or correct the permissions.",
        names=("EACCES", "EPERM"),
        winerrors=(5, 65, 1314),
    ),
    _Kind(
        code="os.gone",
        says="a file or folder is not there, or was moved away meanwhile{at}.",
        hint=f"put it back or correct its name, and {_AGAIN}.",
        names=("ENOENT",),
        winerrors=(2, 3),
    ),
    _Kind(
        code="os.in_the_way",
        says="something of another kind is in the way{at}.",
        hint="choose another name, or move it away.",
        names=("EEXIST", "EISDIR", "ENOTDIR", "ENOTEMPTY"),
        winerrors=(80, 183, 145, 267),
    ),
    _Kind(
        code="os.bad_name",
        says="the system cannot use that name{at}.",
        hint='choose a name without control characters and without < > : " | ? *.',
        names=("EILSEQ", "ELOOP"),
        winerrors=(123, 161, 1113, 1921),
    ),
    _Kind(
        code="os.no_answer",
        says="the disk or the network does not answer as it should{at}.",
        hint=f"see that it is connected and healthy, or choose a local disk, and {_AGAIN}.",
        names=(
            *("EIO", "ESTALE", "ENODEV", "ENXIO", "EREMOTEIO", "ENOTCONN", "ESHUTDOWN", "ENOLINK", "ECOMM"),
            *("EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ETIMEDOUT", "ECONNRESET"),
            *("ECONNABORTED", "ECONNREFUSED", "EBADMSG", "EUCLEAN", "ENOMEDIUM", "EBADF", "EPROTO"),
        ),
        winerrors=(21, 23, 27, 31, 51, 53, 55, 59, 64, 67, 121, 483, 1117, 1167, 1231, 1232, 1392, 1450),
    ),
    _Kind(
        code="os.not_supported",
        says="the file system there cannot do what is needed{at}.",
        hint="choose a folder on a disk of this machine (NTFS, ext4, APFS).",
        names=("ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EXDEV", "EMLINK", "EINVAL", "EOVERFLOW", "ESPIPE"),
        winerrors=(1, 17, 50, 87, 1142),
    ),
    _Kind(
        code="os.no_memory",
        says="the system has no memory left{at}.",
        hint=f"close other programs, use a smaller image or --low-vram, and {_AGAIN}.",
        names=("ENOMEM", "EAGAIN", "ENOBUFS"),
        winerrors=(8, 14, 1455, 1816),
    ),
)

_BY_ERRNO: Mapping[int, _Kind] = {
    getattr(errno, name): kind for kind in reversed(_KINDS) for name in kind.names if hasattr(errno, name)
}
_BY_WINERROR: Mapping[int, _Kind] = {number: kind for kind in _KINDS for number in kind.winerrors}
# How libraries in other languages write a number of the system: Rust, C++, Python, ONNX Runtime.
_NUMBER = re.compile(r"(?i)\(os error (\d+)\)|\[errno (\d+)\]|\berrcode = (\d+)|system error number (\d+)")
# Only what cannot mean anything else is recognised by its words.
_BY_WORDS: Mapping[str, int] = {
    os.strerror(getattr(errno, name)): getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EMFILE", "ENFILE", "ENAMETOOLONG"),
        *("EFBIG", "EROFS", "EIO", "ESTALE", "ENOMEM"),
    )
    if hasattr(errno, name)
}


def covered() -> tuple[int, ...]:
    """Return the numbers of the module errno that have a message of their own."""
    return tuple(sorted(_BY_ERRNO))


def covered_winerrors() -> tuple[int, ...]:
    """Return Windows' numbers that have a message of their own."""
    return tuple(sorted(_BY_WINERROR))


def explain(error: OSError) -> SetupError:
    """Say what the operating system refused, where, and what to do about it."""
    kind = _kind_of(error)
    place = _place(error)
    if kind is None:
        said = error.strerror or str(error) or type(error).__name__
        return SetupError(
            "os.refused", f"the system refused to go on{place and f' at {place}'}: {said}.", f"{_AGAIN}."
        )
    return SetupError(kind.code, kind.says.format(at=place and f": {place}"), kind.hint)


def find(error: BaseException) -> OSError | None:
    """Find an error of the operating system behind another one.

    Args:
        error: Whatever was raised. What it was raised from counts, and libraries that are not Python's
            write the system's number or words into their messages.

    Returns:
        That error; None where the system has nothing to do with it.
    """
    for each in _chain(error):
        if isinstance(each, OSError) and (each.errno is not None or _winerror(each) is not None):
            return each
        if isinstance(each, MemoryError):
            return OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        text = str(each)
        if found := _NUMBER.search(text):
            number = int(next(group for group in found.groups() if group))
            if number in _BY_ERRNO:
                return OSError(number, os.strerror(number))
        for words, number in _BY_WORDS.items():
            if words in text:
                return OSError(number, words)
    return next((each for each in _chain(error) if isinstance(each, OSError)), None)


def allow_many_files() -> None:
    """Raise the limit of open files to what the system allows; some shells set 256 or less."""
    try:
        import resource
    except ImportError:  # Windows, where the limit is none in practice
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MANY_FILES if hard == resource.RLIM_INFINITY else min(_MANY_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        each = waiting.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [other for other in (each.__cause__, each.__context__) if other is not None]
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions


def _kind_of(error: OSError) -> _Kind | None:
    winerror = _winerror(error)
    if winerror is not None and winerror in _BY_WINERROR:
        return _BY_WINERROR[winerror]
    return _BY_ERRNO.get(error.errno) if error.errno is not None else None


def _winerror(error: OSError) -> int | None:
    number = getattr(error, "winerror", None)
    return number if isinstance(number, int) else None


def _place(error: OSError) -> str:
    names = [
        name for name in (error.filename, error.filename2) if isinstance(name, str | bytes | os.PathLike)
    ]
    # A dot says nothing in a message.
    written = (os.fsdecode(name) for name in names)
    return " and ".join(os.path.abspath(name) if name in _HERE else name for name in written)  # noqa: PTH100
