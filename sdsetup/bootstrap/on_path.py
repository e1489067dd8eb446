"""Put ``sdsetup`` where the shell finds it, and take it away again: ``python -m sdsetup.bootstrap.on_path``.

Standard library only. What is written is marked or named, so that ``remove`` finds it and nothing else.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from sdsetup.bootstrap import places
from sdsetup.bootstrap.console import complain, say
from sdsetup.errors import SetupError

_MARK = "# added by sdsetup"
_SHIM = '@"%~dp0..\\venv\\Scripts\\sdsetup.exe" %*\r\n'


def bin_folder() -> Path:
    """Name the folder of the user's that holds the command."""
    return places.data_folder() / "bin" if sys.platform == "win32" else Path.home() / ".local" / "bin"


def command() -> Path:
    """Name the command's file."""
    return bin_folder() / ("sdsetup.cmd" if sys.platform == "win32" else "sdsetup")


def put(environment: Path) -> bool:
    """Put an environment's command on the search path of new terminals.

    Args:
        environment: The environment, in ``places.data_folder()``.

    Returns:
        Whether this very terminal finds it too.

    Raises:
        SetupError: ``install.on-path``: another program has that name there, or nothing can be written.
    """
    try:
        bin_folder().mkdir(parents=True, exist_ok=True)
        if os.path.lexists(command()) and not _is_ours():
            raise SetupError(
                "install.on-path",
                f"{command()} is there and was not put there by sdsetup.",
                f"move it away, or start sdsetup as {_script_of(environment)}.",
            )
        if sys.platform == "win32":
            command().write_text(_SHIM, encoding="ascii", newline="")
        else:
            partial = command().with_name(f".sdsetup-{os.getpid()}")
            partial.symlink_to(_script_of(environment))
            partial.replace(command())
        if _is_searched():
            return True
        if sys.platform == "win32":
            folders = _user_path()
            if bin_folder() not in map(Path, folders):  # a terminal that is older than the entry
                _write_user_path([*folders, str(bin_folder())])
        else:
            for file in _start_files():
                _append(file)
    except OSError as error:
        raise SetupError(
            "install.on-path",
            f"{command()} could not be written: {error.strerror or error}.",
            f"see who owns {bin_folder()}; until then the command is {_script_of(environment)}.",
        ) from error
    return False


def remove() -> list[str]:
    """Take away what ``put`` has written.

    Returns:
        What was removed or changed, in words.
    """
    done = []
    if os.path.lexists(command()) and _is_ours():
        command().unlink()
        done.append(str(command()))
    if sys.platform == "win32":
        left = [folder for folder in _user_path() if Path(folder) != bin_folder()]
        if len(left) < len(_user_path()):
            _write_user_path(left)
            done.append("its entry of the user's PATH")
        return done
    for file in _start_files():
        try:
            lines = file.read_bytes().splitlines(keepends=True)
        except OSError:
            continue
        left = [line for line in lines if not line.rstrip().endswith(_MARK.encode())]
        if len(left) < len(lines):
            _replace(file, b"".join(left))
            done.append(f"its line of {file}")
    return done


def _replace(file: Path, content: bytes) -> None:
    """Write a file of the person's anew, whole or not at all; a link to it stays one."""
    target = file.resolve()
    partial = target.with_name(f"{target.name}.sdsetup-{os.getpid()}")
    partial.write_bytes(content)
    shutil.copymode(target, partial)
    partial.replace(target)


def _script_of(environment: Path) -> Path:
    return places.python_of(environment).with_name("sdsetup.exe" if sys.platform == "win32" else "sdsetup")


def _is_ours() -> bool:
    if sys.platform == "win32":
        return True  # the folder is sdsetup's own
    return command().is_symlink() and places.data_folder() in command().readlink().parents


def _is_searched() -> bool:
    wanted = bin_folder()
    return any(folder and Path(folder) == wanted for folder in os.environ.get("PATH", "").split(os.pathsep))


def _start_files() -> list[Path]:
    """List the files that shells read when they start: those that are there, and in any case .profile.

    zsh, the usual shell of macOS, does not read that one.
    """
    home = Path.home()
    needed = {".profile", ".zshrc"} if Path(os.environ.get("SHELL", "")).name == "zsh" else {".profile"}
    names = (".profile", ".bashrc", ".zshrc", ".bash_profile")
    return [home / name for name in names if name in needed or (home / name).is_file()]


def _append(file: Path) -> None:
    line = f'export PATH="$HOME/.local/bin:$PATH"  {_MARK}\n'
    text = file.read_text(encoding="utf-8", errors="surrogateescape") if file.is_file() else ""
    if line in text:
        return
    gap = "" if not text or text.endswith("\n") else "\n"
    with file.open("a", encoding="utf-8") as opened:
        opened.write(f"{gap}{line}")


if sys.platform == "win32":
    import ctypes
    import winreg

    def _user_path() -> list[str]:
        try:
            with winreg.OpenKey(winreg.HKEY_CURRENT_USER, "Environment") as key:
                value, _ = winreg.QueryValueEx(key, "Path")
        except FileNotFoundError:
            return []  # any other error is one: what cannot be read must not be written over
        return [folder for folder in str(value).split(";") if folder]

    def _write_user_path(folders: list[str]) -> None:
        with winreg.CreateKey(winreg.HKEY_CURRENT_USER, "Environment") as key:
            # Not expanded when read, so what others wrote as %NAME% stays that.
            winreg.SetValueEx(key, "Path", 0, winreg.REG_EXPAND_SZ, ";".join(folders))
        # Source: "WM_SETTINGCHANGE message", learn.microsoft.com: to all windows, for "Environment".
        everyone, setting_change, if_hung = 0xFFFF, 0x001A, 0x0002
        ctypes.windll.user32.SendMessageTimeoutW(
            everyone, setting_change, 0, "Environment", if_hung, 1000, None
        )

else:

    def _user_path() -> list[str]:
        return []

    def _write_user_path(folders: list[str]) -> None:
        raise NotImplementedError(folders)


def main() -> int:
    """Put the command of the running environment on the search path, and say what to type."""
    try:
        found = put(Path(sys.prefix))
    except SetupError as error:
        complain(error)
        return 0  # the command works by its path; the rest of the installation goes on
    if found:
        say(f"The command is {command()}")
    else:
        say(f"The command is {command()}; new terminals find it as `sdsetup`.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
