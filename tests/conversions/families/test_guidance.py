"""Which checkpoints the guidance scale means something to."""

from __future__ import annotations

from typing import Any

import pytest

from conversions.families import flux, flux2_klein, z_image
from conversions.family import Family, PipelineConfigs


@pytest.mark.parametrize(
    ("family", "index", "transformer", "reads"),
    [
        (flux.FAMILY, {}, {"guidance_embeds": True}, True),
        (flux.FAMILY, {}, {}, False),
        (flux2_klein.FAMILY, {"is_distilled": True}, {}, False),
        (flux2_klein.FAMILY, {}, {}, True),
        (z_image.FAMILY, {}, {}, True),
    ],
)
def test_distilled_models_do_not_read_it(
    family: Family, index: dict[str, Any], transformer: dict[str, Any], reads: bool
) -> None:
    configs = PipelineConfigs(index=index, components={"transformer": transformer}, scheduler={})
    assert family.recipe(configs).reads_guidance == reads
