"""Positions of words and patches, as denoisers take them."""

from __future__ import annotations

import numpy as np
import pytest

from conversions.submodels import (
    autoencoder_dc,
    flux2,
    flux2_vae,
    flux_transformer,
    pixart_transformer,
    sana_transformer,
    z_image,
)
from conversions.submodels.rotary import near_square, rotary_angles


@pytest.mark.parametrize(
    ("tokens", "sides"), [(96, (8, 12)), (36, (6, 6)), (15, (3, 5)), (7, (1, 7)), (1, (1, 1)), (99, (9, 11))]
)
def test_sides_of_a_grid(tokens: int, sides: tuple[int, int]) -> None:
    assert near_square(tokens) == sides


def test_angles_of_rotary_positions() -> None:
    positions = np.array([[0, 0], [1, 2], [3, 5]])
    found = rotary_angles(positions, (4, 2), 100.0)
    np.testing.assert_allclose(found, [[0, 0, 0], [1, 0.1, 2], [3, 0.3, 5]])
    assert found.dtype == np.float64


def test_positions_of_flux_1() -> None:
    cos, sin = flux_transformer.rotary_tables({"axes_dims_rope": (2, 2, 4)}, 2, 3)
    rows, columns = [0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2]
    angles = np.array([[0, row, column, column / 100] for row, column in zip(rows, columns, strict=True)])
    np.testing.assert_allclose(cos, np.cos(angles), atol=1e-6)
    np.testing.assert_allclose(sin, np.sin(angles), atol=1e-6)
    assert {cos.dtype, sin.dtype} == {np.dtype(np.float32)}
    assert flux_transformer.rotary_tables({}, 2, 3)[0].shape == (6, 64)
    ones, zeros = flux_transformer.text_tables({"attention_head_dim": 8}, 5)
    assert ones.shape == zeros.shape == (5, 4)
    assert ones.all()
    assert not zeros.any()
    assert flux_transformer.text_tables({}, 5)[0].shape == (5, 64)


def test_positions_of_flux_2() -> None:
    assert flux2.image_positions(2, 2).tolist() == [[0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 1, 1, 0]]
    assert flux2.text_positions(3).tolist() == [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 2]]
    config = {"axes_dims_rope": (2, 2, 2, 4), "rope_theta": 100}
    cos, sin = flux2.rotary_tables(config, np.array([[1, 2, 3, 4]]))
    np.testing.assert_allclose(cos, np.cos([[1, 2, 3, 4, 0.4]]), atol=1e-6)
    np.testing.assert_allclose(sin, np.sin([[1, 2, 3, 4, 0.4]]), atol=1e-6)
    usual, _ = flux2.rotary_tables({}, np.array([[0, 0, 0, 1]]))
    np.testing.assert_allclose(usual[0, 48:50], np.cos([1, 2000 ** (-1 / 16)]), atol=1e-6)
    assert usual.shape == (1, 64)
    assert flux2_vae.downscale({}) == 16
    assert flux2_vae.packed_channels({"latent_channels": 5}) == 20


def test_positions_of_z_image() -> None:
    assert z_image.filled_up(1) == z_image.filled_up(32) == 32
    assert z_image.filled_up(33) == 64
    positions = z_image.image_positions(2, 3, 7)
    assert positions.shape == (32, 3)
    assert positions[:7].tolist() == [
        *([8, row, column] for row in range(2) for column in range(3)),
        [0, 0, 0],
    ]
    assert not positions[6:].any()
    assert z_image.text_positions(3).tolist() == [[1, 0, 0], [2, 0, 0], [3, 0, 0]]
    cos, sin = z_image.rotary_tables({"axes_dims": (2, 2, 4), "rope_theta": 100}, np.array([[1, 2, 3]]))
    np.testing.assert_allclose(cos, np.cos([[1, 2, 3, 0.3]]), atol=1e-6)
    np.testing.assert_allclose(sin, np.sin([[1, 2, 3, 0.3]]), atol=1e-6)
    usual, _ = z_image.rotary_tables({}, np.array([[1, 0, 0]]))
    np.testing.assert_allclose(usual[0, :2], np.cos([1, 256 ** (-1 / 16)]), atol=1e-6)
    assert usual.shape == (1, 64)


def test_positions_of_an_image_s_patches_are_sines_and_cosines() -> None:
    config = {"num_attention_heads": 1, "attention_head_dim": 8, "sample_size": 8, "interpolation_scale": 2}
    table = pixart_transformer.position_table(config, 2, 3)
    # Two latents are a patch, of which the training's side had four; places are stretched to it, and by two.
    rows = [row / (2 / 4) / 2 for row in (0, 0, 0, 1, 1, 1)]
    columns = [column / (3 / 4) / 2 for column in (0, 1, 2, 0, 1, 2)]
    wanted = [
        [
            *np.sin([column, column / 100]),
            *np.cos([column, column / 100]),
            *np.sin([row, row / 100]),
            *np.cos([row, row / 100]),
        ]
        for row, column in zip(rows, columns, strict=True)
    ]
    np.testing.assert_allclose(table, wanted, atol=1e-6)
    # Sana's patches are single latents.
    sana = sana_transformer.position_table(config, 2, 3)
    rows = [row / (2 / 8) / 2 for row in (0, 0, 0, 1, 1, 1)]
    np.testing.assert_allclose(sana[:, 4], np.sin(rows), atol=1e-6)
    assert sana.dtype == np.float32
    assert autoencoder_dc.downscale({}) == 32
    assert autoencoder_dc.channels({"latent_channels": 8}) == 8
