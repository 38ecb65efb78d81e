"""ViT, backbone, decoders, whole networks, weights."""

# they enter themselves into the registries of decoders, heads and networks
from fmseg.networks import cnn, heads, linear, multiresunet, unet, unetr, upernet  # noqa: F401
