"""A backbone in the form of timm's ViT: the same answers, with all that tools around timm expect of a model.

timm keeps one position per patch and none for the class token, whose own is added to it here once and for all. How
positions are resampled for images of other sizes stays ours.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fmseg.errors import UsageError
from fmseg.networks.vit import ViT, position_grid, trunk_options
from fmseg.records.plans import Architecture


def as_timm(vit: ViT, mean: tuple[float, ...], std: tuple[float, ...]) -> nn.Module:
    """Return a timm VisionTransformer without a head, in evaluation mode, that answers as ``vit`` does.

    It takes images of any size, (value in [0, 1] - mean) / std, of which a last incomplete row of patches is filled
    up; ``pretrained_cfg`` has mean, std and size. Weights are copied. Raises UsageError for what is no plain ViT.
    """
    architecture = vit.architecture
    if architecture.peculiar:
        raise UsageError(
            f"This is no plain ViT ({', '.join(architecture.peculiar)}), and timm's form is for those alone."
        )
    model = _timm_class()(architecture)
    state = {name: tensor for name, tensor in vit.state_dict().items() if name != "mask_token"}
    position = state.pop("pos_embed")  # (1, 1 + N, D)
    state["cls_token"] = state["cls_token"] + position[:, :1]
    state["pos_embed"] = position[:, 1:]
    model.load_state_dict(state)
    size = (architecture.channels, *architecture.image_size)
    model.pretrained_cfg = {
        "architecture": architecture.name,
        "num_classes": 0,
        "input_size": size,
        "fixed_input_size": False,
        "mean": mean,
        "std": std,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }
    model.default_cfg = model.pretrained_cfg
    return model.eval()


def _timm_class() -> Any:
    from timm.models.vision_transformer import VisionTransformer  # seconds

    class TimmViT(VisionTransformer):
        """timm's ViT with fmseg's way to resample positions."""

        def __init__(self, architecture: Architecture) -> None:
            super().__init__(
                **trunk_options(architecture),
                reg_tokens=architecture.num_registers,
                no_embed_class=True,
                dynamic_img_size=True,
                dynamic_img_pad=True,
            )
            self.architecture = architecture

        def _pos_embed(self, x: Tensor) -> Tensor:
            """Return the tokens (B, P + N, D) of patches (B, h, w, D)."""
            batch, h, w, _ = x.shape
            x = x.flatten(1, 2) + position_grid(self.pos_embed, self.architecture, h, w)
            prefix = [self.cls_token, *([self.reg_token] if self.reg_token is not None else [])]
            return torch.cat([*(each.expand(batch, -1, -1) for each in prefix), x], dim=1)

    return TimmViT
