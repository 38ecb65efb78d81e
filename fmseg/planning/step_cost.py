"""What a step of finetuning costs, in operations, by network."""

from fmseg.planning.budget import forward_flop, num_patches
from fmseg.planning.unet import unet_gflop
from fmseg.records.plans import Architecture
from fmseg.records.recipe import Recipe

#: multiplications of UperNet per patch, in units of width^2
UPERNET_PRODUCTS = 790
#: of a forward pass of timm's networks at 224 x 224 pixels, in units of 10^9; a multiplication and an addition are two
CNN_GFLOP = {"resnet18": 3.5, "resnet50": 8.0, "efficientnetv2": 5.7}


def finetuning_gflop(architecture: Architecture, size: tuple[int, int], width: int) -> float:
    """Return the operations of a training step of ViT and UperNet per image, in units of 10^9."""
    patches = num_patches(architecture, size)
    decoder = 2 * patches * (UPERNET_PRODUCTS * width**2 + 4 * architecture.width * width)
    return 3 * (forward_flop(architecture, size) + decoder) / 1e9


def step_gflop(recipe: Recipe, architecture: Architecture) -> float:
    """Return the operations of a training step per image, in units of 10^9; a forward pass is a third of them."""
    if recipe.network == "unet" and recipe.unet is not None:
        return 3 * unet_gflop(recipe.unet, recipe.input_size)
    if recipe.network in CNN_GFLOP:
        height, width = recipe.input_size
        return 3 * CNN_GFLOP[recipe.network] * height * width / 224**2
    return finetuning_gflop(architecture, recipe.input_size, recipe.decoder_channels)
