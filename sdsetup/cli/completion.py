"""``sdsetup completion``: the line or script that lets a shell complete commands and options."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from sdsetup.cli import output


class Shell(StrEnum):
    """A shell that can complete."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"
    POWERSHELL = "powershell"


def completion(shell: Annotated[Shell, typer.Argument(help="Your shell.")]) -> None:
    """Write the script that lets a shell complete commands and options.

    bash: sdsetup completion bash >> ~/.bashrc. zsh: the same with ~/.zshrc, after compinit. fish: into
    ~/.config/fish/completions/sdsetup.fish. PowerShell: >> $PROFILE.
    """
    from typer._completion_shared import get_completion_script

    output.emit(
        get_completion_script(prog_name="sdsetup", complete_var="_SDSETUP_COMPLETE", shell=shell.value)
    )
