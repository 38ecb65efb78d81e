"""The network of a run, whatever its task."""

from torch import nn

from fmseg.networks.classifier import classifiers
from fmseg.networks.segmenter import segmenters
from fmseg.networks.vit import ViT
from fmseg.records.labels import ClassScheme, OutputScheme
from fmseg.records.plans import Architecture
from fmseg.records.recipe import Recipe


def build_network(recipe: Recipe, architecture: Architecture, scheme: OutputScheme) -> nn.Module:
    """Build what a recipe trains for these outputs, with random weights: a function of torch's seed alone.

    Raises UnknownName for a network, decoder or head that is not registered for this task.
    """
    networks = classifiers if isinstance(scheme, ClassScheme) else segmenters
    return networks[recipe.network](recipe, architecture, scheme.num_outputs)


def backbone_of(network: nn.Module) -> ViT:
    """Return the ViT of a network."""
    return next(module for module in network.modules() if isinstance(module, ViT))
