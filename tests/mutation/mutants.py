"""Make mutants of a module's source with mutmut's operators.

What no test should notice is left out: docstrings, wording of messages, annotations, asserts (they state
what types cannot), logging, names of encodings, ``zip(strict=...)`` and times, which no test here asserts.
"""

from __future__ import annotations

import difflib
import random
from dataclasses import dataclass

import libcst as cst
import libcst.matchers as m
from mutmut.mutation.mutators import mutation_operators

_LEFT_OUT = (cst.Annotation, cst.Decorator, cst.Import, cst.ImportFrom, cst.Assert, cst.Param)
_NO_BEHAVIOUR = {"len", "isinstance", "issubclass", "cast", "TypeVar", "NewType", "ParamSpec", "overload"}
_LOGGING = {"logging", "logger", "log", "_log", "_logger", "warnings"}
_TYPES = {
    "Callable",
    "Mapping",
    "Sequence",
    "Iterable",
    "Iterator",
    "Literal",
    "Annotated",
    "dict",
    "list",
    "tuple",
}
_ENCODINGS = {"utf-8", "utf8", "ascii", "latin-1", "utf-8-sig"}
_UNSEEN_ARGUMENTS = {"strict", "encoding", "timeout", "stacklevel", "daemon", "thread_name_prefix"}
_OF_FIELDS = {"init", "repr", "compare", "hash"}  # of dataclasses


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A changed module.

    Attributes:
        source: The whole module, changed in one place.
        line: The line of the original that the change begins in, from 1.
        removed: Changed lines of the original, without indentation, joined by a space.
        added: What they became.
        diff: A unified diff.
    """

    source: str
    line: int
    removed: str
    added: str
    diff: str


def count(source: str) -> int:
    """Return how many mutants a source has."""
    return len(_places(source)[1])


def sample(source: str, most: int, seed: str) -> list[Mutant]:
    """Draw mutants of a module at random: half change an operator, a number, a condition or the like.

    A quarter drops a value, a quarter changes a string: these are many, and most are noticed by any test.

    Args:
        source: The module.
        most: How many at most.
        seed: Equal seeds draw equal mutants of equal sources.
    """
    module, places = _places(source)
    chance = random.Random(seed)
    chance.shuffle(places)
    kinds: dict[type[cst.CSTNode], list[tuple[cst.CSTNode, cst.CSTNode]]] = {}
    for place in places:
        kinds.setdefault(_kind(*place), []).append(place)
    found: list[Mutant] = []
    turn = 0
    while any(kinds.values()) and len(found) < most:
        wanted = (cst.CSTNode, cst.Call, cst.CSTNode, cst.BaseString)[turn % 4]
        turn += 1
        if not kinds.get(wanted):
            continue
        old, new = kinds[wanted].pop()
        changed = module.deep_replace(old, new)
        assert isinstance(changed, cst.Module)
        if changed.code != source and _compiles(changed.code):
            found.append(_mutant(source, changed.code))
    return found


def _places(source: str) -> tuple[cst.Module, list[tuple[cst.CSTNode, cst.CSTNode]]]:
    # The wrapper's copy of the tree holds no node twice, so that one can be replaced.
    module = cst.metadata.MetadataWrapper(cst.parse_module(source)).module
    collector = _Collector()
    module.visit(collector)
    return module, collector.places


def _compiles(source: str) -> bool:
    try:
        compile(source, "mutant", "exec")
    except (SyntaxError, ValueError):
        return False
    return True


def _mutant(source: str, changed: str) -> Mutant:
    before, after = source.splitlines(), changed.splitlines()
    blocks = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    _, begin, end, new_begin, new_end = next(block for block in blocks if block[0] != "equal")
    return Mutant(
        source=changed,
        line=begin + 1,
        removed=" ".join(line.strip() for line in before[begin:end]),
        added=" ".join(line.strip() for line in after[new_begin:new_end]),
        diff="\n".join(list(difflib.unified_diff(before, after, n=2, lineterm=""))[2:]),
    )


class _Collector(cst.CSTVisitor):
    """Collect nodes with what they may become."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[tuple[cst.CSTNode, cst.CSTNode]] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.Param):  # its default counts, its annotation does not
            if node.default is not None:
                node.default.visit(self)
            return False
        if isinstance(node, _LEFT_OUT) or _is_docstring(node) or _is_wording(node) or _is_typing(node):
            return False
        if isinstance(node, cst.If) and m.matches(node.test, m.Name("TYPE_CHECKING")):
            return False
        if isinstance(node, cst.Call) and m.matches(node.func, m.Attribute(attr=m.Name("reshape"))):
            node.func.visit(self)  # -1 and -2 are the same to numpy
            for each in node.args:
                if not m.matches(each.value, m.UnaryOperation(operator=m.Minus())):
                    each.visit(self)
            return False
        if isinstance(node, cst.Arg) and (_is_unseen(node) or _is_wording(node.value)):
            return False
        for kind, operator in mutation_operators:
            if isinstance(node, kind):
                self.places += [(node, new) for new in operator(node) if _counts(node, new)]
        return True


def _counts(old: cst.CSTNode, new: cst.CSTNode) -> bool:
    """Say whether a change is one that a test should notice."""
    if isinstance(old, cst.Call) and isinstance(new, cst.Call) and old.func is new.func:
        changed = _changed_argument(old, new)
        return changed is None or not (_is_unseen(changed) or _is_wording(changed.value))
    if isinstance(old, cst.Assign | cst.AnnAssign):
        return old.value is not None and not _is_wording(old.value)
    return True


def _kind(old: cst.CSTNode, new: cst.CSTNode) -> type[cst.CSTNode]:
    """Return Call where a value is dropped, BaseString where one is changed, else CSTNode."""
    if isinstance(old, cst.Assign | cst.AnnAssign):
        return cst.Call
    if isinstance(old, cst.Call) and isinstance(new, cst.Call) and old.func is new.func:
        return cst.Call
    return cst.BaseString if isinstance(old, cst.BaseString) else cst.CSTNode


def _changed_argument(old: cst.Call, new: cst.Call) -> cst.Arg | None:
    kept = list(new.args)
    for place, argument in enumerate(old.args):
        if place >= len(kept) or kept[place] is not argument:
            return argument
    return None


def _is_docstring(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.Expr) and isinstance(node.value, cst.BaseString)


def _is_wording(node: cst.CSTNode) -> bool:
    """Say whether a string is text for people, or the name of an encoding."""
    if isinstance(node, cst.SimpleString):
        value = node.evaluated_value
        return isinstance(value, str) and (" " in value.strip() or value in _ENCODINGS)
    if isinstance(node, cst.FormattedString):
        return any(isinstance(part, cst.FormattedStringText) and " " in part.value for part in node.parts)
    if isinstance(node, cst.ConcatenatedString):
        return _is_wording(node.left) or _is_wording(node.right)
    return False


def _is_typing(node: cst.CSTNode) -> bool:
    """Say whether a node exists for types, or for the log, alone."""
    if isinstance(node, cst.Call):
        root: cst.CSTNode = node.func
        while isinstance(root, cst.Attribute):
            root = root.value
        named = isinstance(node.func, cst.Name) and node.func.value in _NO_BEHAVIOUR
        return named or (isinstance(root, cst.Name) and root.value in _LOGGING)
    if isinstance(node, cst.Assign | cst.AnnAssign):
        target = node.targets[0].target if isinstance(node, cst.Assign) else node.target
        name = target.value if isinstance(target, cst.Name) else ""
        if name in {"__all__", "__slots__"} or name.endswith(("_SECONDS", "_TIMEOUT")):
            return True
        value = node.value
        alias = isinstance(value, cst.Subscript) and name.strip("_").istitle()
        return alias or (value is not None and isinstance(value, cst.Call) and _is_typing(value))
    return False


def _is_unseen(argument: cst.Arg) -> bool:
    return argument.keyword is not None and argument.keyword.value in _UNSEEN_ARGUMENTS | _OF_FIELDS
