"""Match the modules that an adapter names against those that a component really has."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

# PEFT's own files call the model that they are for by these; which component that is, the modules tell.
_BARE = ("base_model.model.", "lycoris_")


@dataclass(frozen=True, kw_only=True)
class AdaptedComponent:
    """A component that adapters may change, and how they name it.

    Attributes:
        component: Its name.
        prefixes: What kohya's files begin the names of its modules with, for example ``"lora_te1"``.
        optional: The beginning of its modules' names that libraries write or leave out; empty for none.
        original: Gives the names that the model's first publication had, by diffusers' names; None for none.
        tokenizer: Folder of its tokenizer, which textual inversion extends; empty for none.
        embedding: The end of the name of its table of tokens.
    """

    component: str
    prefixes: tuple[str, ...]
    optional: str = ""
    original: Callable[[Collection[str]], Mapping[str, str]] | None = None
    tokenizer: str = ""
    embedding: str = ""


@dataclass(frozen=True, kw_only=True)
class ModuleIndex:
    """The modules of a component by all names that an adapter may give them.

    Attributes:
        adapted: The component.
        dotted: Modules by their names.
        underscored: Modules by their names with underscores for dots.
    """

    adapted: AdaptedComponent
    dotted: Mapping[str, str]
    underscored: Mapping[str, str]

    @classmethod
    def of(cls, adapted: AdaptedComponent, tensors: Collection[str]) -> ModuleIndex:
        """List the names of a component's modules, from those of its weights.

        A name that two modules would share is left out: it says too little.
        """
        modules = dict.fromkeys(
            name.rpartition(".")[0] for name in tensors if name.endswith((".weight", ".bias"))
        )
        original = adapted.original(tensors) if adapted.original else {}
        dotted: dict[str, str] = {}
        underscored: dict[str, str] = {}
        doubtful: set[str] = set()
        for module in modules:
            for form in _forms(module, adapted.optional, original):
                dotted[form] = module
                flat = form.replace(".", "_")
                if underscored.setdefault(flat, module) != module:
                    doubtful.add(flat)
        return cls(
            adapted=adapted,
            dotted=dotted,
            underscored={flat: module for flat, module in underscored.items() if flat not in doubtful},
        )

    def find(self, name: str) -> str | None:
        """Return the module that an adapter calls by a name; None where it is none of this component."""
        for prefix in self.adapted.prefixes:
            if name.startswith(f"{prefix}_"):
                return self.underscored.get(name[len(prefix) + 1 :])
        own = f"{self.adapted.component}."
        if name.startswith(own):
            return self.dotted.get(name[len(own) :])
        for prefix in _BARE:
            if name.startswith(prefix):
                rest = name.removeprefix(prefix)
                return self.dotted.get(rest) or self.underscored.get(rest)
        return self.dotted.get(name)


def _forms(module: str, optional: str, original: Mapping[str, str]) -> Iterator[str]:
    yield module
    if optional:
        yield module.removeprefix(optional) if module.startswith(optional) else f"{optional}{module}"
    if module in original:
        yield original[module]
