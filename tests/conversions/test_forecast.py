from __future__ import annotations

from dataclasses import replace

import onnx
import onnx_ir as ir
import pytest

from conversions.errors import ConversionError
from conversions.families.stable_diffusion import recipe
from conversions.family import PipelineConfigs
from conversions.forecast import (
    CONTEXT_BYTES,
    SESSION_BYTES,
    Forecast,
    SessionNeed,
    SubmodelNeed,
    forecast,
    largest_square,
    peak_activation_bytes,
)
from conversions.passes.slice_attention import LIMIT_BYTES
from conversions.pipeline_graphs import PipelineGraphs
from conversions.providers.table import provider_for
from conversions.recipe import ImageSize
from conversions.shape_inference import fix_sizes
from tests.conversions.graphs_for_tests import group_norm_graph


def in_pixels(models: dict[str, ir.Model]) -> PipelineGraphs:
    """Graphs whose sizes are those of images, not of latents."""
    configs = PipelineConfigs(index={}, components={}, scheduler={})
    return PipelineGraphs(
        models=models,
        roles=dict.fromkeys(models, "encoder"),
        recipe=recipe(configs),
        provider=provider_for("cpu"),
    )


def square(side: int) -> ImageSize:
    return ImageSize(width=side, height=side)


def parsed(text: str) -> ir.Model:
    return ir.from_proto(
        onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>' + text)
    )


def peak(text: str) -> int:
    return peak_activation_bytes(fix_sizes(parsed(text), {"n": 10}))


def test_a_chain_holds_two_tensors_at_a_time() -> None:
    assert peak("g (float[n, 25] x) => (float[n, 25] y) { a = Relu(x) b = Relu(a) y = Relu(b) }") == 2 * 1000


def test_a_skip_connection_is_held_until_it_is_read() -> None:
    chain = "a = Relu(x) b = Relu(a) c = Relu(b) y = Add(c, a)"
    assert peak(f"g (float[n, 25] x) => (float[n, 25] y) {{ {chain} }}") == 3 * 1000


def test_a_view_takes_no_memory_but_keeps_its_source() -> None:
    body = "a = Relu(x) r = Reshape(a, s) b = Relu(x) y = Add(r, b)"
    text = f"g (float[n, 25] x) => (float[n, 25] y) <int64[2] s = {{10, 25}}> {{ {body} }}"
    assert peak(text) == 3 * 1000


def test_half_precision_takes_half() -> None:
    assert peak("g (float16[n, 25] x) => (float16[n, 25] y) { y = Relu(x) }") == 1000


def test_the_cpu_widens_one_weight_at_a_time() -> None:
    half, whole = (
        forecast(in_pixels({"unet": group_norm_graph(dtype=dtype)}), square(64))
        for dtype in ("float16", "float")
    )
    in_half, in_whole = half.needs[0].on_device, whole.needs[0].on_device
    assert in_whole.float32_weights_bytes == 0
    assert in_half.float32_weights_bytes == 4 * 16 * 16 * 9
    assert in_half.float32_activation_bytes == in_whole.activation_bytes == 2 * in_half.activation_bytes
    assert half.cpu_bytes == half.needs[0].cpu_bytes == in_half.cpu_bytes
    saved = in_whole.weights_bytes - in_half.weights_bytes
    assert in_half.cpu_bytes == in_whole.cpu_bytes - saved + in_half.float32_weights_bytes


def test_attention_holds_its_scores() -> None:
    body = "{ y = com.microsoft.MultiHeadAttention <num_heads = 5> (x, x, x) }"
    tokens = 10 * 25 * 4
    scores = 5 * 10 * 10 * 4
    assert peak(f"g (float[1, n, 25] x) => (float[1, n, 25] y) {body}") == 2 * tokens + scores


def test_weights_count_without_data() -> None:
    model = group_norm_graph()
    for name in ("weight", "bias", "before"):
        model.graph.initializers[name].const_value = None
    small_constants = 4 * 8 + 4 * 8 + 4 * 4 + 4 * 4 + 2 * 8

    (needed,) = forecast(in_pixels({"unet": model}), square(64)).needs
    need = needed.on_device

    assert (
        16 * 16 * 9 * 4 + 2 * 16 * 4 <= need.weights_bytes <= 16 * 16 * 9 * 4 + 2 * 16 * 4 + small_constants
    )
    assert needed.total_bytes == need.weights_bytes + need.activation_bytes + SESSION_BYTES


def test_memory_grows_with_the_image_and_stages_need_less_than_all_at_once() -> None:
    models = in_pixels({"a": group_norm_graph(), "b": group_norm_graph()})

    small, large = (forecast(models, square(side)) for side in (256, 512))

    assert large.device_bytes > small.device_bytes
    assert small.staged_bytes < small.device_bytes


def test_the_largest_image_that_fits_fits_and_the_next_does_not() -> None:
    models = in_pixels({"a": group_norm_graph()})
    free = forecast(models, square(704)).staged_bytes

    assert largest_square(models, free) == 704
    assert largest_square(models, free - 1) == 640
    assert largest_square(models, 1) == 0


def test_an_impossible_size_is_one_clear_error() -> None:
    model = parsed(
        "g (float[1, 25] x, float[height, 25] z) => (float[1, 25] y) { y = Concat <axis = 1> (x, z) }"
    )
    with pytest.raises(ConversionError, match="no valid shape"):
        fix_sizes(model, {"height": 3})


@pytest.mark.parametrize(
    "view",
    [
        "Reshape(a, s)",
        "Identity(a)",
        "Flatten(a)",
        "Unsqueeze(a, axis)",
        "Squeeze(a, axis)",
    ],
)
def test_every_view_shares_its_source_s_memory(view: str) -> None:
    body = f"a = Relu(x) r = {view} b = Exp(r) m = ReduceMax <keepdims = 0> (b) n = Neg(a) y = Add(n, m)"
    constants = "<int64[2] s = {10, 25}, int64[1] axis = {0}>"
    shape = "1, n, 25" if view.startswith("Squeeze") else "n, 25"
    assert peak(f"g (float[{shape}] x) => (float y) {constants} {{ {body} }}") == 2 * 1000 + 4


def session(weights: int, activations: int, wide: int) -> SessionNeed:
    return SessionNeed(
        weights_bytes=weights,
        activation_bytes=activations,
        float32_weights_bytes=7,
        float32_activation_bytes=wide,
    )


def need(name: str, *sessions: SessionNeed, kept: int = 0) -> SubmodelNeed:
    return SubmodelNeed(submodel=name, sessions=sessions, kept_bytes=kept)


def test_of_sessions_one_after_the_other_the_largest_counts_on_each_device() -> None:
    heavy, wide = session(100, 20, 30), session(40, 70, 120)
    for sessions in ((heavy, wide), (wide, heavy)):
        parted = need("a", *sessions, kept=5)
        assert parted.on_device == heavy
        assert parted.total_bytes == 120 + SESSION_BYTES
        assert parted.on_cpu == wide
        assert parted.cpu_bytes == 40 + 7 + 120 + 5 + SESSION_BYTES


def test_the_memory_of_submodels_adds_up() -> None:
    one, context = 268_435_456, 536_870_912
    assert (one, context) == (SESSION_BYTES, CONTEXT_BYTES)
    made = Forecast(
        width=64, height=32, needs=(need("a", session(100, 20, 50)), need("b", session(90, 40, 60)))
    )
    assert [each.total_bytes for each in made.needs] == [120 + one, 130 + one]
    assert [each.cpu_bytes for each in made.needs] == [157 + one, 157 + one]
    assert made.device_bytes == context + 250 + 2 * one
    assert made.staged_bytes == context + 130 + one
    assert made.host_bytes == 200 + one
    assert made.cpu_bytes == 190 + 14 + 60 + one
    assert made.staged_cpu_bytes == 157 + one
    assert made.fits(made.staged_bytes)
    assert not made.fits(made.staged_bytes - 1)
    assert [each.submodel for each in made.without({"a"}).needs] == ["b"]
    assert made.as_dict() == {
        "width": 64,
        "height": 32,
        "device_bytes": made.device_bytes,
        "staged_bytes": made.staged_bytes,
        "host_bytes": made.host_bytes,
        "cpu_bytes": made.cpu_bytes,
        "submodels": {
            "a": {"weights_bytes": 100, "activation_bytes": 20},
            "b": {"weights_bytes": 90, "activation_bytes": 40},
        },
    }
    more = Forecast(width=64, height=32, needs=(need("b", session(10, 5, 6)),))
    assert [each.submodel for each in made.joined(more).needs] == ["a", "b", "b"]
    assert made.updated(more).needs == (made.needs[0], more.needs[0])
    nothing = made.without({"a", "b"})
    assert (nothing.device_bytes, nothing.staged_bytes, nothing.host_bytes) == (context, context, one)
    assert (nothing.cpu_bytes, nothing.staged_cpu_bytes) == (one, 0)


def attention() -> ir.Model:
    """Self-attention of an image's pixels, 4 heads of 2."""
    return parsed(
        "g (float16[batch, height, width, 8] x) => (float16[batch, tokens, 8] y)"
        "<int64[3] s = {0, -1, 8}> { t = Reshape(x, s)"
        " y = com.microsoft.MultiHeadAttention <num_heads = 4> (t, t, t) }"
    )


@pytest.mark.parametrize(("held", "most"), [(0, 2), (1, 3), (2, 4), (9, 6)])
def test_what_is_given_back_some_launches_later_counts(held: int, most: int) -> None:
    """Five tensors one after the other and the input; a view launches nothing and has no memory."""
    model = parsed(
        "g (float[batch, 8, height, width] x) => (float[batch, 8, height, width] y)"
        "<int64[4] s = {0, 0, 0, 0}>"
        "{ a = Neg(x) v = Reshape(a, s) b = Neg(v) c = Neg(b) d = Neg(c) y = Neg(d) }"
    )
    graphs = in_pixels({"unet": model})
    late = replace(graphs.provider, held_launches=held, activation_factor=1.0)
    (need,) = forecast(graphs.run_by(late), square(16)).needs
    assert need.on_device.activation_bytes == most * 8 * 16 * 16 * 4


def test_scores_do_not_count_where_flash_attention_keeps_none() -> None:
    graphs = in_pixels({"unet": attention()})
    flash = graphs.run_by(replace(graphs.provider, activation_factor=1.0))
    assert flash.provider.flash_attention
    stored = flash.run_by(replace(flash.provider, flash_attention=False))
    (with_scores,), (without,) = (forecast(each, square(16)).needs for each in (stored, flash))
    scores = 4 * 256**2 * 2
    assert with_scores.on_device.activation_bytes - without.on_device.activation_bytes == scores
    assert with_scores.on_cpu.float32_activation_bytes == without.on_cpu.float32_activation_bytes


def test_attention_with_a_bias_has_scores_everywhere() -> None:
    text = (
        "g (float[batch, height, width, 8] x, float[batch, 4, tokens, tokens] b)"
        " => (float[batch, tokens, 8] y)"
        "<int64[3] s = {0, -1, 8}> { t = Reshape(x, s)"
        " y = com.microsoft.MultiHeadAttention <num_heads = 4> (t, t, t, , , b) }"
    )
    sizes = {"batch": 1, "height": 16, "width": 16, "tokens": 256}
    model = fix_sizes(parsed(text), sizes)
    scores, states = 4 * 256**2 * 4, 256 * 8 * 4
    assert peak_activation_bytes(model, flash_attention=True) == 2 * scores + 2 * states


def test_a_denoiser_s_activations_count_more_where_they_were_measured_to() -> None:
    model = "g (float[batch, 8, height, width] x) => (float[batch, 8, height, width] y) { y = Neg(x) }"
    graphs = in_pixels({"unet": parsed(model), "vae_decoder": parsed(model)})
    graphs = replace(graphs, roles={"unet": "denoiser", "vae_decoder": "decoder"})
    graphs = graphs.run_by(replace(graphs.provider, activation_factor=1.0, denoiser_factor=1.0))
    more = graphs.run_by(replace(graphs.provider, activation_factor=2.0, denoiser_factor=1.5))
    alive, held = (
        {need.submodel: need.on_device.activation_bytes for need in forecast(each, square(16)).needs}
        for each in (graphs, more)
    )
    assert held == {"unet": 3 * alive["unet"], "vae_decoder": 2 * alive["vae_decoder"]}


def test_scores_count_as_the_provider_s_sessions_hold_them() -> None:
    """At 256 x 256 the scores are 4 x 65,536 x 65,536 float16; DirectML's sessions slice them."""
    whole = in_pixels({"unet": attention()}).run_by(provider_for("migraphx"))
    sliced = whole.run_by(provider_for("directml"))
    needs = {
        graphs.provider.target: forecast(graphs, square(256)).needs[0].on_device.activation_bytes
        for graphs in (whole, sliced)
    }
    scores, states = 4 * 65_536**2 * 2, 65_536 * 8 * 2
    assert needs["migraphx"] == scores + 2 * states
    # One slice's scores, and beside them no more than a few copies of the states.
    held = needs["directml"] / sliced.provider.activation_factor
    assert LIMIT_BYTES <= held <= LIMIT_BYTES + 8 * states
    small = [forecast(graphs, square(16)).needs[0].on_device.activation_bytes for graphs in (whole, sliced)]
    assert small[1] == small[0] * sliced.provider.activation_factor
    assert [node.op_type for node in whole.models["unet"].graph] == ["Reshape", "MultiHeadAttention"]
