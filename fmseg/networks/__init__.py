"""ViT, backbone, decoders, weights."""

from fmseg.networks import linear, upernet  # noqa: F401  they enter themselves into the registry of decoders
