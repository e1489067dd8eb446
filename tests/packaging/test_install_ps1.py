"""install.ps1 as far as it can be looked at without a PowerShell: grammar, commands, parameters, variables.

What PSScriptAnalyzer says besides, its own run on GitHub says (.github/workflows/tests.yml).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import pytest

from tests.packaging.building import ROOT

if sys.platform == "win32":
    pytest.skip("the same file is looked at on Linux", allow_module_level=True)

import tree_sitter
import tree_sitter_powershell

# Cmdlets and their parameters in Windows PowerShell 5.1, which every Windows has.
CMDLETS = {
    "get-command": {"all", "commandtype", "name", "erroraction"},
    "get-location": {"psdrive", "psprovider"},
    "join-path": {"path", "childpath", "resolve"},
    "out-null": {"inputobject"},
    "remove-item": {"path", "literalpath", "recurse", "force", "erroraction"},
    "select-object": {"first", "last", "skip", "property", "unique"},
    "test-path": {"path", "literalpath", "pathtype", "isvalid"},
}
# Those of them that Windows PowerShell takes without their names, at most.
POSITIONAL = {"get-command": 1, "join-path": 2, "remove-item": 1, "select-object": 1, "test-path": 1}
PROGRAMS = {"uv"}
AUTOMATIC = {"args", "_", "null", "true", "false", "lastexitcode", "psscriptroot", "executioncontext"}
# Verbs of functions that PowerShell approves of, less those for which PSScriptAnalyzer wants -WhatIf.
VERBS = {"exit", "find", "get", "read", "resolve", "test", "write"}


def nodes(node: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    """Yield a node and all below it, in order."""
    yield node
    for child in node.children:
        yield from nodes(child)


def text(node: tree_sitter.Node) -> str:
    """Return what a node was read from."""
    assert node.text is not None
    return node.text.decode()


def faults(script: str) -> list[str]:
    """List what is wrong with a script."""
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_powershell.language()))
    root = parser.parse(script.encode()).root_node
    found = [f"line {each.start_point.row + 1} cannot be read" for each in nodes(root) if _is_wrong(each)]
    functions = [text(each).lower() for each in nodes(root) if each.type == "function_name"]
    found += [f"{name} has no fitting verb" for name in functions if name.partition("-")[0] not in VERBS]
    assigned = set(AUTOMATIC)
    for node in nodes(root):
        if node.type == "command":
            found += _of_command(node, set(functions))
        elif node.type in {"left_assignment_expression", "script_parameter"}:
            assigned |= {_name(each) for each in nodes(node) if each.type == "variable"}
        elif node.type == "foreach_statement":
            assigned.add(_name(next(each for each in node.children if each.type == "variable")))
    read = {_name(each) for each in nodes(root) if each.type == "variable"}
    read |= {name.lower() for name in re.findall(r"\$(\w+)(?![\w:])", _in_texts(root))}
    return found + [
        f"${name} is never assigned" for name in sorted(read - assigned) if not name.startswith("env:")
    ]


def _is_wrong(node: tree_sitter.Node) -> bool:
    return node.type == "ERROR" or node.is_missing


def _name(variable: tree_sitter.Node) -> str:
    return text(variable).lstrip("$@").strip("{}").lower()


def _in_texts(root: tree_sitter.Node) -> str:
    return "\n".join(text(each) for each in nodes(root) if each.type == "expandable_string_literal")


def _of_command(command: tree_sitter.Node, functions: set[str]) -> list[str]:
    """List what is wrong with one command; what is started by a path may have any parameters."""
    named = command.child_by_field_name("command_name")
    if named is None or named.type != "command_name":
        return []
    name = text(named).lower()
    if name in functions | PROGRAMS:
        return []
    if name not in CMDLETS:
        return [f"{name} is no command of Windows PowerShell 5.1 that is known here"]
    elements = command.child_by_field_name("command_elements")
    given = [] if elements is None else [e for e in elements.children if e.type != "command_argument_sep"]
    found, positional, valued = [], 0, False
    for element in given:
        if element.type == "command_parameter":
            parameter = text(element).lstrip("-").lower()
            if parameter not in CMDLETS[name]:
                found.append(f"{name} has no -{parameter}")
            valued = parameter not in {"all", "recurse", "force", "resolve", "unique", "isvalid"}
        else:
            positional += not valued
            valued = False
    if positional > POSITIONAL.get(name, 0):
        found.append(f"{name} takes no {positional} arguments without names")
    return found


def script() -> str:
    return (ROOT / "install.ps1").read_text(encoding="ascii")  # 5.1 reads others in the machine's code page


def test_it_has_no_fault() -> None:
    assert faults(script()) == []


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("$links = @()", "$links = @(", "cannot be read"),
        ("'sdsetup\\venv'", "'sdsetup\\venv", "cannot be read"),
        ("Select-Object -Skip", "Select-Objekt -Skip", "select-objekt is no command"),
        ("Test-Path -LiteralPath", "Test-Path -LiteralPaht", "has no -literalpaht"),
        ("(Join-Path $bundle '.')", "(Join-Path $bundle 'a' 'b')", "no 3 arguments"),
        ("$own = Join-Path", "$owm = Join-Path", "$own is never assigned"),
        ('that $local\\sdsetup', 'that $locla\\sdsetup', "$locla is never assigned"),
        ("Exit-WithHint", "Stop-WithHint", "has no fitting verb"),
    ],
)  # fmt: skip
def test_a_planted_fault_is_noticed(was: str, becomes: str, said: str) -> None:
    changed = script().replace(was, becomes)
    assert changed != script()
    assert any(said in fault for fault in faults(changed)), faults(changed)
