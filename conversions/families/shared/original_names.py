"""Tensor names of the original releases (CompVis, Stability AI, OpenCLIP) to those of diffusers.

Source: the layers of CompVis/latent-diffusion (``openaimodel.py``, ``model.py``) and mlfoundations/open_clip
(``transformer.py``) beside those of diffusers' and transformers' classes; tests compare the results with
diffusers' ``from_single_file``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from conversions.errors import ConversionError
from conversions.submodels.original_unet import APART, RESNET
from conversions.weights.expression import Expression, Reshape, Tensors, Transpose, row_range

_RESNET = tuple((f"{old}.", f"{new}.") for new, old in RESNET.items())
_UNET_ENDS = (
    *((f"{old}.", f"{new}.") for new, old in APART.items()),
    ("time_embed.cond_proj.", "time_embedding.cond_proj."),
)
_UNET_BLOCK = re.compile(r"(input_blocks|middle_block|output_blocks)\.(\d{1,3})\.(?:(\d)\.)?(.*)")
_VAE_BLOCK = re.compile(
    r"(encoder|decoder)\.(down|up)\.(\d{1,2})\.(block\.(\d{1,2})|downsample|upsample)\.(.*)"
)
_VAE_MIDDLE = re.compile(r"(encoder|decoder)\.mid\.(block_([12])|attn_1)\.(.*)")
_VAE_ATTENTION = (
    ("norm.", "group_norm."),
    ("q.", "to_q."),
    ("k.", "to_k."),
    ("v.", "to_v."),
    ("proj_out.", "to_out.0."),
)
_OPENCLIP = (
    ("ln_1.", "layer_norm1."),
    ("ln_2.", "layer_norm2."),
    ("mlp.c_fc.", "mlp.fc1."),
    ("mlp.c_proj.", "mlp.fc2."),
    ("attn.out_proj.", "self_attn.out_proj."),
)
_OPENCLIP_ENDS = (
    ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
    ("ln_final.", "text_model.final_layer_norm."),
)
_OPENCLIP_BLOCK = re.compile(r"transformer\.resblocks\.(\d{1,3})\.(.*)")


@dataclass(frozen=True, kw_only=True)
class OriginalUNet:
    """The original U-Net's names to those of ``UNet2DConditionModel``.

    Attributes:
        layers: Residual blocks of each level.
    """

    layers: int

    def __call__(self, tensors: Tensors) -> Tensors:
        """Return the tensors by their new names; those that are unknown keep theirs."""
        return _renamed({name: self._name(name) for name in tensors}, tensors)

    def _name(self, name: str) -> str:
        found = _UNET_BLOCK.fullmatch(name)
        if found is None or name.startswith("input_blocks.0."):
            return _replaced(name, _UNET_ENDS)
        place, number, rest = found[1], int(found[2]), found[4]
        if place == "middle_block":
            rest = f"{found[3]}.{rest}" if found[3] is not None else rest
            block = "attentions.0" if number == 1 else f"resnets.{number // 2}"
            return f"mid_block.{block}.{_replaced(rest, _RESNET) if number != 1 else rest}"
        side = "down" if place == "input_blocks" else "up"
        level, layer = divmod(number - (side == "down"), self.layers + 1)
        home = f"{side}_blocks.{level}"
        if side == "down" and rest.startswith("op."):
            return f"{home}.downsamplers.0.conv.{rest.removeprefix('op.')}"
        if side == "up" and rest.startswith("conv.") and found[3] in ("1", "2"):
            return f"{home}.upsamplers.0.{rest}"
        if found[3] == "1":
            return f"{home}.attentions.{layer}.{rest}"
        return f"{home}.resnets.{layer}.{_replaced(rest, _RESNET)}" if found[3] == "0" else name


@dataclass(frozen=True, kw_only=True)
class OriginalAutoencoder:
    """The original autoencoder's names to those of ``AutoencoderKL``.

    Attributes:
        levels: Number of levels; the decoder counts them from the other end.
    """

    levels: int

    def __call__(self, tensors: Tensors) -> Tensors:
        """Return the tensors by their new names; those that are unknown keep theirs."""
        found = _renamed({name: self._name(name) for name in tensors}, tensors)
        return {
            name: _as_matrix(each) if ".attentions." in name else each
            for name, each in found.items()
            # Training leaves the losses' own networks in the file.
            if not name.startswith("loss.")
        }

    def _name(self, name: str) -> str:
        if found := _VAE_BLOCK.fullmatch(name):
            level = int(found[3]) if found[2] == "down" else self.levels - 1 - int(found[3])
            home = f"{found[1]}.{found[2]}_blocks.{level}"
            if found[5] is None:
                return f"{home}.{found[4]}rs.0.{found[6]}"
            return f"{home}.resnets.{found[5]}.{_replaced(found[6], (('nin_shortcut.', 'conv_shortcut.'),))}"
        if found := _VAE_MIDDLE.fullmatch(name):
            home = f"{found[1]}.mid_block"
            if found[3] is None:
                return f"{home}.attentions.0.{_replaced(found[4], _VAE_ATTENTION)}"
            return f"{home}.resnets.{int(found[3]) - 1}.{found[4]}"
        return re.sub(r"^(encoder|decoder)\.norm_out\.", r"\1.conv_norm_out.", name)


@dataclass(frozen=True, kw_only=True)
class OpenClipText:
    """OpenCLIP's text encoder to the names of ``CLIPTextModel`` and ``CLIPTextModelWithProjection``.

    Attributes:
        layers: The layers that are used; Stable Diffusion 2.x leaves the last one out.
        projected: Whether the projection of the pooled state is used.
    """

    layers: int
    projected: bool

    def __call__(self, tensors: Tensors) -> Tensors:
        """Return the tensors by their new names; q, k and v lie in the file one after the other."""
        found: dict[str, Expression] = {}
        for name, each in tensors.items():
            if name == "text_projection":
                if self.projected:
                    found["text_projection.weight"] = Transpose(of=each)
                continue
            block = _OPENCLIP_BLOCK.fullmatch(name)
            if block is None:
                if name != "logit_scale":
                    found[_replaced(name, _OPENCLIP_ENDS)] = each
                continue
            if int(block[1]) >= self.layers:
                continue
            home, rest = f"text_model.encoder.layers.{int(block[1])}", block[2]
            if rest in ("attn.in_proj_weight", "attn.in_proj_bias"):
                kind = rest.removeprefix("attn.in_proj_")
                for letter, part in zip("qkv", _thirds(each), strict=True):
                    found[f"{home}.self_attn.{letter}_proj.{kind}"] = part
            else:
                found[f"{home}.{_replaced(rest, _OPENCLIP)}"] = each
        return found


@dataclass(frozen=True, kw_only=True)
class SameNames:
    """Names that are those of transformers or diffusers already."""

    def __call__(self, tensors: Tensors) -> Tensors:
        """Return the tensors."""
        return tensors


def _renamed(names: dict[str, str], tensors: Tensors) -> dict[str, Expression]:
    found: dict[str, Expression] = {}
    for old, new in names.items():
        if new in found:
            raise ConversionError(
                "weights.ambiguous",
                f"The file holds two tensors for {new}; one is {old}.",
                "Download the file again, or take another.",
            )
        found[new] = tensors[old]
    return found


def _replaced(name: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for old, new in pairs:
        if name.startswith(old):
            return new + name[len(old) :]
    return name


def _thirds(each: Expression) -> list[Expression]:
    if not each.shape or each.shape[0] % 3 or not each.shape[0]:
        raise ConversionError(
            "weights.shape",
            f"The tensor {each.name} has the shape {list(each.shape)}; it must hold q, k and v.",
            "Download the file again.",
        )
    size = each.shape[0] // 3
    return [row_range(each, first * size, (first + 1) * size) for first in range(3)]


def _as_matrix(each: Expression) -> Expression:
    """A 1x1 convolution is a matrix."""
    if len(each.shape) == 4 and each.shape[2:] == (1, 1):
        return Reshape(of=each, to=each.shape[:2])
    return each
