import pytest

from sdsetup import demo


def test_the_checkpoint_is_small_and_described():
    files = [path for path in demo.checkpoint_path().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 16_000_000
    assert (demo.checkpoint_path() / "README.md").is_file()


def test_only_the_demos_own_weights_are_taken_for_the_demo():
    import hashlib

    name = "unet/diffusion_pytorch_model.safetensors"
    digest = hashlib.sha256((demo.checkpoint_path() / name).read_bytes()).hexdigest()
    assert demo.made_of_demo({name: digest})
    assert not demo.made_of_demo({name: "0" * 64})
    assert not demo.made_of_demo({"unet/other.safetensors": digest})
    assert not demo.made_of_demo({})


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_plain_diffusers_loads_it_and_knows_its_words():
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(demo.checkpoint_path())
    caption = "a small yellow star left of a purple square"
    assert pipeline.tokenizer.tokenize(caption) == [f"{word}</w>" for word in caption.split()]
    assert pipeline.unet.config.cross_attention_dim == pipeline.text_encoder.config.hidden_size
    assert pipeline.vae.config.scaling_factor == 0.18215


@pytest.mark.torch
def test_a_fifth_of_the_combinations_is_held_out_of_training():
    from tests.demo_training.world import held_out, sample

    secret = held_out()
    assert secret.sum() >= 0.15 * 10 * 6 * 9
    scenes = sample(2000, seed=1)
    for row in range(len(scenes)):
        for thing in range(scenes.count[row]):
            assert not secret[scenes.colour[row, thing], scenes.shape[row, thing], scenes.background[row]]
