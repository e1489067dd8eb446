"""Parity of a denoiser of true size, a few blocks at a time: a 6 B model in the memory of some of its blocks.

Run as ``python -m tests.benchmarks.blocks CHECKPOINT COMPONENT PRECISION [--from FIRST] [--every EVERY]
[--together COUNT]``. Each block of the component, or every EVERY-th, is converted and verified as a model of
one block, or of COUNT that follow each other: with the checkpoint's first and last layers, the blocks' own
weights, and the library's conversion and verification. It says each model's agreement with PyTorch, the least
of all, and the largest memory that a process took.
"""

from __future__ import annotations

import argparse
import re
import resource
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from conversions.checkpoint.folder import Checkpoint, open_folder
from conversions.conversion import convert
from conversions.events import ignore
from conversions.options import Options
from conversions.package.layout import open_package
from conversions.plan import make_plan
from conversions.providers.devices import CPU
from conversions.verification.parity import verify
from conversions.weights.expression import Tensors


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """How a class numbers its blocks.

    Attributes:
        counts: Its lists of blocks, and the field of the configuration that counts each.
        numbers: Fields that hold numbers of blocks of the first list.
        closing: Whether the last block has another form than the others.
    """

    counts: Mapping[str, str]
    numbers: tuple[str, ...] = ()
    closing: bool = False

    def chosen(self, config: Mapping[str, Any], first: int, together: int) -> Mapping[str, tuple[int, ...]]:
        """Return the blocks of each list that a model keeps: of a shorter list at least the last."""
        chosen = {}
        for name, count in self.counts.items():
            last = int(config[count]) - 1
            kept = range(min(first, last), min(first + together - 1, last) + 1)
            chosen[name] = (*kept, last) if self.closing and last not in kept else tuple(kept)
        return chosen


_BLOCKS: Mapping[str, Blocks] = {
    "ZImageTransformer2DModel": Blocks(
        counts={
            "layers": "n_layers",
            "noise_refiner": "n_refiner_layers",
            "context_refiner": "n_refiner_layers",
        }
    ),
    "Flux2Transformer2DModel": Blocks(
        counts={
            "transformer_blocks": "num_layers",
            "single_transformer_blocks": "num_single_layers",
        }
    ),
    "SD3Transformer2DModel": Blocks(
        counts={"transformer_blocks": "num_layers"}, numbers=("dual_attention_layers",), closing=True
    ),
}


@dataclass(frozen=True, kw_only=True)
class SomeBlocks:
    """Keeps some blocks of each list, and numbers them anew.

    Attributes:
        chosen: The numbers of the blocks of each list.
    """

    chosen: Mapping[str, tuple[int, ...]] = field(hash=False)

    def __call__(self, tensors: Tensors) -> Tensors:
        kept = dict(tensors)
        for name, numbers in self.chosen.items():
            pattern = re.compile(rf"^{name}\.(\d+)\.")
            for each in tensors:
                if found := pattern.match(each):
                    tensor = kept.pop(each)
                    if int(found[1]) in numbers:
                        kept[f"{name}.{numbers.index(int(found[1]))}.{each[found.end() :]}"] = tensor
        return kept


def blocks_of(checkpoint: Checkpoint, component: str) -> Blocks:
    """Return how a component numbers its blocks."""
    return next(_BLOCKS[each.kind.class_name] for each in checkpoint.submodels if each.component == component)


def with_some_blocks(checkpoint: Checkpoint, component: str, first: int, together: int) -> Checkpoint:
    """Return a checkpoint whose component has some blocks of each list, and no other component."""
    whole = checkpoint.components[component]
    blocks = blocks_of(checkpoint, component)
    chosen = blocks.chosen(whole.config, first, together)
    counts = {blocks.counts[name]: len(numbers) for name, numbers in chosen.items()}
    kept = next(iter(chosen.values()))
    numbers = {
        name: [kept.index(each) for each in whole.config.get(name, ()) if each in kept]
        for name in blocks.numbers
    }
    made = replace(
        whole,
        config={**whole.config, **counts, **numbers},
        transforms=(*whole.transforms, SomeBlocks(chosen=chosen)),
    )
    return replace(
        checkpoint,
        components={**checkpoint.components, component: made},
        submodels=tuple(each for each in checkpoint.submodels if each.component == component),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("component")
    parser.add_argument("precision")
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--every", type=int)
    parser.add_argument("--together", type=int, default=1)
    given = parser.parse_args()
    component, precision = given.component, given.precision
    checkpoint = open_folder(given.checkpoint)
    config = checkpoint.components[component].config
    counts = blocks_of(checkpoint, component).counts.values()
    blocks = range(given.first, max(int(config[count]) for count in counts), given.every or given.together)
    least = float("inf")
    with tempfile.TemporaryDirectory() as work:
        for number in blocks:
            made = with_some_blocks(checkpoint, component, number, given.together)
            options = Options(
                target="cpu",
                precision="fp32" if precision == "fp32" else "fp16",
                precisions={} if precision in ("fp16", "fp32") else {component: precision},
            )
            output = Path(work) / f"block-{number}"
            graphs = Path(work) / "graphs"
            plan = make_plan(made, options, graphs)
            convert(
                plan, made, output, tool_version="bench", graph_cache=graphs, checks=None, listener=ignore
            )
            report = verify(open_package(output), made, device=CPU, listener=ignore)
            parity = report.submodels[0].parity
            assert parity is not None
            least = min(least, parity.psnr_db)
            print(f"block {number}: {parity.psnr_db:.1f} dB {report.all_problems or ''}", flush=True)
            for path in output.rglob("*data*"):
                path.unlink()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"least {least:.1f} dB; {max(peak, own):.2f} GiB in the largest process")


if __name__ == "__main__":
    main()
