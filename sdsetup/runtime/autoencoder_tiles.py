"""Tiles in which a package's autoencoder can run: which submodels, and of which sides."""

from __future__ import annotations

from collections.abc import Mapping

from conversions.package.layout import Package

SIDES = (512, 384, 256, 192, 128)
"""Sides of tiles, in pixels of the image: the largest that fits is the fastest."""

ASKED_SIDE = 256
"""Side of tiles that are asked for where memory is not short."""

_AFTER_A_FAILURE = (ASKED_SIDE, SIDES[-1])
"""Sides that are tried when memory runs out; each try takes as long as a whole decoder may."""


def tileable(package: Package) -> frozenset[str]:
    """Return the autoencoder's submodels, of which an image is the input or the output."""
    return frozenset((*package.with_role("decoder"), *package.with_role("encoder")))


def with_smaller(tiles: Mapping[str, int], submodel: str, package: Package) -> Mapping[str, int] | None:
    """Let a submodel that ran out of memory run in tiles, or in smaller ones.

    Args:
        tiles: Sides of the tiles so far, by submodel; one that runs whole is absent.
        submodel: What ran out of memory.
        package: Holds it.

    Returns:
        The sides from now on; None where it has no tiles, or none that are smaller.

    Raises:
        ConversionError: ``tiling.operator``, ``tiling.no_resize``: it cannot be cut.
    """
    before = tiles.get(submodel)
    side = next((each for each in _AFTER_A_FAILURE if before is None or each < before), None)
    if side is None or submodel not in tileable(package):
        return None
    if before is None:
        import onnx_ir as ir

        from conversions.tiling.cut import cut

        cut(ir.load(package.graph(submodel)))
    return {**tiles, submodel: side}
