"""How a family makes images: what the generation loop asks of it.

Numpy only; sessions and tokenizers are arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Tensors: TypeAlias = dict[str, NDArray[Any]]
Task = Literal["text-to-image", "image-to-image", "inpainting"]


@dataclass(frozen=True, kw_only=True)
class ImageSize:
    """What a batch of images asks of the submodels' shapes.

    Attributes:
        width: In pixels.
        height: In pixels.
        images: Images made at once.
    """

    width: int
    height: int
    images: int = 1


@dataclass(frozen=True, kw_only=True)
class LatentSpace:
    """The space that a denoiser works in.

    Attributes:
        channels: Of a latent image.
        downscale: Pixels of an image's side for each latent.
        scaling: What encoded images are multiplied by.
        shift: What is subtracted from encoded images before that.
    """

    channels: int
    downscale: int
    scaling: float
    shift: float = 0.0

    def shape(self, size: ImageSize) -> tuple[int, int, int]:
        """Return the shape of one latent image, (channels, height, width)."""
        return self.channels, size.height // self.downscale, size.width // self.downscale

    def encode(self, encoded: Floats) -> Floats:
        """Bring what the encoder gave to the denoiser's scale."""
        return (encoded - np.float32(self.shift)) * np.float32(self.scaling)

    def decode(self, latents: Floats) -> Floats:
        """Bring latents to the decoder's scale."""
        return latents / np.float32(self.scaling) + np.float32(self.shift)


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What a family's images are when a request does not say.

    Attributes:
        width: In pixels: the size that the checkpoint was trained on.
        height: In pixels.
        steps: Scheduler steps.
        guidance_scale: Of classifier-free guidance.
        strength: Share of the noise that an initial image gets, by task.
    """

    width: int
    height: int
    steps: int
    guidance_scale: float
    strength: Mapping[Task, float]


@dataclass(frozen=True, kw_only=True)
class GuidedPrompts:
    """What a recipe needs to know of a request.

    Attributes:
        prompt: What to show.
        negative_prompt: What to keep away from; empty for nothing.
        guidance_scale: How closely to follow the prompt.
        clip_skip: Layers of CLIP to leave out at its end.
        size: The images' size.
    """

    prompt: str
    negative_prompt: str
    guidance_scale: float
    clip_skip: int
    size: ImageSize


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """What the denoiser is given beside latents and time, the same at every step.

    Attributes:
        size: The images' size.
        runs: For each run of the denoiser at a step, tensors by input name, with one row for each row that it
            sees. Prompts of different lengths take several runs.
        branches: Rows that each image takes in the batch of a run: 2 where both prompts of classifier-free
            guidance are in one; the rows of the negative prompt come first then.
    """

    size: ImageSize
    runs: tuple[Tensors, ...]
    branches: int = 1


@dataclass(frozen=True, kw_only=True)
class EncodedPrompt:
    """A prompt as one text encoder takes it.

    Attributes:
        tokens: int32 ``[chunks, length]``, each chunk with its own start and end.
        weights: float32 ``[chunks, length]``; 1 is neutral.
    """

    tokens: NDArray[np.int32]
    weights: Floats


@dataclass(frozen=True, kw_only=True)
class PaddedTokens:
    """A text as an encoder without weights and chunks takes it.

    Attributes:
        ids: int32 ``[1, length]``.
        mask: int32 ``[1, length]``; 0 where there is padding.
    """

    ids: NDArray[np.int32]
    mask: NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class NoiseLevels:
    """What decides the noise levels of a flow-matching model beside its scheduler's configuration.

    Attributes:
        image_tokens: Tokens that the denoiser makes of the latents: more of them need more noise.
        mu: Log of the shift where it depends on the size; None takes the configuration's line through two
            sizes.
        sigmas: Levels before they are shifted, falling, one a step; None leaves them to the scheduler.
    """

    image_tokens: int
    mu: float | None = None
    sigmas: tuple[float, ...] | None = None


class PromptEncoder(Protocol):
    """Turns prompts into tokens, and encoded chunks into one weighted row."""

    def tokenize(
        self,
        text: str,
        tokenizer: str,
        *,
        length: int,
        multiple: int = 0,
        before: str = "",
        after: str = "",
    ) -> PaddedTokens:
        """Return a text's tokens, special ones of the tokenizer included, cut or filled up to a length.

        Args:
            text: Read as it is: brackets are no weights.
            tokenizer: Folder of the tokenizer in the package.
            length: The most tokens.
            multiple: Fill up to a multiple of this instead of to ``length``; 0 fills up to it.
            before: Text put before it, such as an instruction. Notices do not count its tokens.
            after: Text put after it; not counted either.
        """
        ...

    def encode(self, prompt: str, tokenizer: str, *, at_least: int = 1, length: int = 0) -> EncodedPrompt:
        """Split a prompt into chunks of tokens.

        Args:
            prompt: Text with weights in brackets.
            tokenizer: Folder of the tokenizer in the package.
            at_least: Number of chunks; missing ones are empty.
            length: Tokens of a chunk, special ones included; 0 takes the recipe's ``prompt_length``.
        """
        ...

    def embed(self, hidden: Floats, encoded: EncodedPrompt) -> Floats:
        """Join a prompt's chunks, ``[chunks, length, width]``, to ``[1, tokens, width]``."""
        ...


class Run(Protocol):
    """Runs a submodel once."""

    def __call__(self, submodel: str, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        """Return the outputs by name; floats are float32."""
        ...


@dataclass(frozen=True, kw_only=True)
class InitialImage:
    """An image to start from, encoded.

    Attributes:
        latents: float32 ``[images, channels, height, width]`` on the denoiser's scale; None where the image
            is only seen through ``masked_latents``.
        mask: float32 ``[1, 1, height, width]`` of the latents' size: 1 where the image is made anew; None
            without a mask.
        masked_latents: The latents of the image with the masked part blanked, for denoisers that read it.
    """

    latents: Floats | None
    mask: Floats | None = None
    masked_latents: Floats | None = None


class Recipe(Protocol):
    """What is particular to images of one family."""

    @property
    def latents(self) -> LatentSpace:
        """The space that the denoiser works in."""
        ...

    @property
    def unsupported(self) -> str:
        """Why no images can be made with the checkpoint; empty where they can."""
        ...

    @property
    def tasks(self) -> frozenset[Task]:
        """What the checkpoint can do."""
        ...

    @property
    def defaults(self) -> Defaults:
        """What images are when a request does not say."""
        ...

    @property
    def native(self) -> ImageSize:
        """The size of the images that the checkpoint was trained on."""
        ...

    @property
    def scheduler_config(self) -> Mapping[str, Any]:
        """The scheduler's configuration as diffusers would use it."""
        ...

    @property
    def prediction(self) -> str:
        """Name of the denoiser's output."""
        ...

    @property
    def size_multiple(self) -> int:
        """Width and height in pixels are multiples of this."""
        ...

    @property
    def largest_side(self) -> int | None:
        """Width and height in pixels are at most this; None where nothing limits them."""
        ...

    @property
    def prompt_length(self) -> int:
        """Tokens that a text encoder takes at once, start and end included."""
        ...

    @property
    def most_clip_skip(self) -> int:
        """The most layers that the text encoders can leave out."""
        ...

    @property
    def distilled_steps(self) -> bool:
        """Whether the denoiser was distilled to a few steps of its own, as latent consistency models are."""
        ...

    @property
    def own_scheduler(self) -> str:
        """Class of the one scheduler that can step the model; empty where any of its kind can."""
        ...

    @property
    def weighs_words(self) -> bool:
        """Whether brackets in a prompt weigh words; language models read them as they are."""
        ...

    @property
    def reads_guidance(self) -> bool:
        """Whether the guidance scale changes anything; some distilled models do without."""
        ...

    @property
    def blends_masks(self) -> bool:
        """Whether a mask is applied to the latents after each step, for denoisers that do not read it."""
        ...

    def sizes(self, role: str, size: ImageSize) -> Mapping[str, int]:
        """Return the size of each free dimension of a submodel's inputs, by the submodel's role."""
        ...

    def guided(self, guidance_scale: float) -> bool:
        """Say whether the denoiser sees each image twice at this guidance."""
        ...

    def noise_levels(self, steps: int, size: ImageSize) -> NoiseLevels | None:
        """Return what decides the noise levels of flow matching; None for other models."""
        ...

    def encode(self, run: Run, prompts: PromptEncoder, request: GuidedPrompts) -> Conditioning:
        """Turn the prompts into what the denoiser is conditioned on."""
        ...

    def denoiser_inputs(
        self, latents: Floats, timestep: float, conditioning: Conditioning, initial: InitialImage | None
    ) -> tuple[Tensors, ...]:
        """Put the denoiser's inputs together, for each of its runs at a step.

        Args:
            latents: ``[images, channels, height, width]``, scaled as the scheduler says.
            timestep: On the training scale.
            conditioning: As :meth:`encode` gave it.
            initial: The image that is started from, where there is one.
        """
        ...

    def guide(self, outputs: tuple[Floats, ...], conditioning: Conditioning, guidance_scale: float) -> Floats:
        """Reduce the denoiser's outputs, one of each run, to a prediction of the latents' shape."""
        ...

    def decode(self, run: Run, latents: Floats) -> Floats:
        """Turn latents into pixels, ``[images, 3, height, width]``, -1 to 1."""
        ...

    def encode_image(self, run: Run, pixels: Floats, noise: Floats) -> Floats:
        """Turn pixels into latents.

        Args:
            run: Runs a submodel.
            pixels: float32 ``[images, 3, height, width]``, -1 to 1.
            noise: Unit normal, of the latents' shape; decides which of the encoder's samples is taken.
        """
        ...
