"""ViT, backbone, decoders, weights."""
