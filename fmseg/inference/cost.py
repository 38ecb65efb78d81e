"""What predicting takes: networks, operations, and seconds by rule of thumb.

Operations are counted on one image of a network's own size, whatever the network is; larger images take several
windows.
"""

from collections.abc import Sequence

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fmseg.inference.members import outputs_of
from fmseg.inference.sliding import mirrorings
from fmseg.networks.build import build_network
from fmseg.records.run import RunConfig
from fmseg.records.selection import Cost
from fmseg.registry import load_plugins


def gflop_of(config: RunConfig) -> float:
    """Return the operations of one network of a run on one image, mirrored as planned, in units of 10^9."""
    load_plugins(config.plugins)
    model = build_network(config.recipe, config.architecture, outputs_of(config)).eval().requires_grad_(False)
    image = torch.zeros(1, config.architecture.channels, *config.recipe.input_size)
    # as plain products: the counter does not know all of the fused kernels
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(image)
    return counter.get_total_flops() * len(mirrorings(config.plans.mirror_axes)) / 1e9


def cost_of(networks: Sequence[tuple[int, float]], config: RunConfig) -> Cost:
    """Return what an ensemble takes. networks: (how many, 10^9 operations of one) of each recipe."""
    gflop = sum(count * each for count, each in networks)
    return Cost(
        num_networks=sum(count for count, _ in networks),
        gflop=float(f"{gflop:.4g}"),
        seconds=float(f"{gflop / config.plans.hardware.gflops:.3g}"),
    )
