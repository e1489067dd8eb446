"""Parity of a denoiser of true size, one block at a time: a 6 B model in the memory of one of its blocks.

Run as ``python -m tests.benchmarks.blocks CHECKPOINT COMPONENT PRECISION [EVERY]``. Each block of the
component, or every EVERY-th, is converted and verified as a model of one block: with the checkpoint's own
first and last layers, the block's own weights, and the library's conversion and verification. It says each
block's agreement with PyTorch, the least of all, and the largest memory that a process took.
"""

from __future__ import annotations

import re
import resource
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from conversions.checkpoint.folder import Checkpoint, open_folder
from conversions.conversion import convert
from conversions.events import ignore
from conversions.options import Options
from conversions.package.layout import open_package
from conversions.plan import make_plan
from conversions.providers.devices import CPU
from conversions.verification.parity import verify
from conversions.weights.expression import Tensors

# For each class the lists of blocks, and the field of the configuration that counts each.
_BLOCKS: Mapping[str, Mapping[str, str]] = {
    "ZImageTransformer2DModel": {
        "layers": "n_layers",
        "noise_refiner": "n_refiner_layers",
        "context_refiner": "n_refiner_layers",
    },
    "Flux2Transformer2DModel": {
        "transformer_blocks": "num_layers",
        "single_transformer_blocks": "num_single_layers",
    },
}


@dataclass(frozen=True, kw_only=True)
class OneBlock:
    """Keeps one block of each list, under the name of the first.

    Attributes:
        lists: The lists of blocks.
        number: Which block; of a shorter list, its last.
    """

    lists: tuple[str, ...]
    number: int

    def __call__(self, tensors: Tensors) -> Tensors:
        kept = dict(tensors)
        for name in self.lists:
            pattern = re.compile(rf"^{name}\.(\d+)\.")
            numbers = {int(found[1]) for each in tensors if (found := pattern.match(each))}
            wanted = min(self.number, max(numbers))
            for each in tensors:
                if found := pattern.match(each):
                    tensor = kept.pop(each)
                    if int(found[1]) == wanted:
                        kept[f"{name}.0.{each[found.end() :]}"] = tensor
        return kept


def blocks_of(checkpoint: Checkpoint, component: str) -> Mapping[str, str]:
    """Return a component's lists of blocks, and the field that counts each."""
    return next(_BLOCKS[each.kind.class_name] for each in checkpoint.submodels if each.component == component)


def with_one_block(checkpoint: Checkpoint, component: str, number: int) -> Checkpoint:
    """Return a checkpoint whose component has one block of each list, and no other component."""
    whole = checkpoint.components[component]
    lists = blocks_of(checkpoint, component)
    made = replace(
        whole,
        config={**whole.config, **dict.fromkeys(lists.values(), 1)},
        transforms=(*whole.transforms, OneBlock(lists=tuple(lists), number=number)),
    )
    return replace(
        checkpoint,
        components={**checkpoint.components, component: made},
        submodels=tuple(each for each in checkpoint.submodels if each.component == component),
    )


def main() -> None:
    folder, component, precision, *every = sys.argv[1:]
    checkpoint = open_folder(Path(folder))
    config = checkpoint.components[component].config
    counts = blocks_of(checkpoint, component).values()
    blocks = range(0, max(int(config[count]) for count in counts), int(every[0]) if every else 1)
    least = float("inf")
    with tempfile.TemporaryDirectory() as work:
        for number in blocks:
            made = with_one_block(checkpoint, component, number)
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
