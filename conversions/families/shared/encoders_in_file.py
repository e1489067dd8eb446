"""Text encoders in single files as ComfyUI and Stability AI write them, behind ``text_encoders.``.

Source: CHECKPOINT_KEY_NAMES, ``create_diffusers_clip_model_from_ldm`` and
``convert_sd3_t5_checkpoint_to_diffusers`` in diffusers 0.42's single_file_utils.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from conversions.families.shared.original_names import SameNames
from conversions.graph_kind import Config
from conversions.single_file_layout import FileComponent
from conversions.weights.expression import Identity, Tensors

_TOKENS = "text_model.embeddings.token_embedding.weight"
_NORM = "text_model.final_layer_norm.weight"
_PROJECTION = "text_projection.weight"


@dataclass(frozen=True, kw_only=True)
class WithoutProjection:
    """Leave out the projection of the pooled state, which some files hold although no pipeline uses it.

    Attributes:
        identity: Whether to put the identity in its place, for encoders that must have one.
    """

    identity: bool

    def __call__(self, tensors: Tensors) -> Tensors:
        """Return the tensors."""
        found = {name: each for name, each in tensors.items() if name != _PROJECTION}
        norm = tensors.get(_NORM)
        if self.identity and norm is not None:
            found[_PROJECTION] = Identity(of=norm, width=norm.size)
        return found


def _unprojected(config: Config) -> WithoutProjection:
    del config
    return WithoutProjection(identity=False)


def _identity(config: Config) -> WithoutProjection:
    del config
    return WithoutProjection(identity=True)


def _same(config: Config) -> SameNames:
    del config
    return SameNames()


CLIP_L_IN_FILE = FileComponent(
    name="text_encoder",
    prefixes=("text_encoders.clip_l.transformer.",),
    marker=_TOKENS,
    names=_unprojected,
)
"""CLIP's text encoder, whose pooled state nothing projects."""

CLIP_L_PROJECTED_IN_FILE = FileComponent(
    name="text_encoder",
    prefixes=("text_encoders.clip_l.transformer.",),
    marker=_TOKENS,
    names=_identity,
)
"""The same in a pipeline that wants a projection: Stable Diffusion 3 was trained without."""

CLIP_G_IN_FILE = FileComponent(
    name="text_encoder_2",
    prefixes=("text_encoders.clip_g.transformer.",),
    marker=_TOKENS,
    names=_same,
)


def t5_in_file(name: str) -> FileComponent:
    """Return T5's encoder as a component of this name."""
    return FileComponent(
        name=name,
        prefixes=("text_encoders.t5xxl.transformer.",),
        marker="encoder.block.0.layer.0.SelfAttention.q.weight",
        names=_same,
    )
