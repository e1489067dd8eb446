"""A seed's noise: that of numpy's generator, for each image a stream of its own."""

from __future__ import annotations

import numpy as np

from sdsetup.imaging.latent_noise import LatentNoise

SHAPE = (4, 3, 5)


def test_an_image_of_a_batch_is_the_one_that_its_own_seed_gives() -> None:
    batch = LatentNoise.of(7, 3)
    assert len(batch.streams) == 3
    drawn = [batch.draw(SHAPE), batch.draw(SHAPE)]
    assert drawn[0].shape == (3, *SHAPE)
    assert drawn[0].dtype == np.float32
    for place in range(3):
        stream = np.random.Generator(np.random.PCG64(7 + place))
        alone = LatentNoise.of(7 + place, 1)
        for each in drawn:
            expected = stream.standard_normal(SHAPE, dtype=np.float32)
            assert np.array_equal(each[place], expected)
            assert np.array_equal(alone.draw(SHAPE)[0], expected)
