"""The decoders and their contract: features of a backbone in, logits out.

A decoder is built as ``decoders[name](channels, strides, num_outputs=..., width=...)``. It is called with one
(B, channels[i], h_i, w_i) map per tap, whose pixels are strides[i] image pixels wide, and answers with logits
(B, num_outputs, h', w') on any grid that covers the same area: ``Segmenter`` scales them to the image.
"""

from collections.abc import Sequence
from typing import Protocol

from torch import nn

from fmseg.registry import Registry


class DecoderFactory(Protocol):
    """A class or function that builds a decoder."""

    def __call__(self, channels: Sequence[int], strides: Sequence[int], *, num_outputs: int, width: int) -> nn.Module:
        """Build a decoder. width: of its feature maps; a decoder without such maps leaves it unused."""


decoders: Registry[DecoderFactory] = Registry("decoder")


def output_layer(inputs: int, num_outputs: int) -> nn.Conv2d:
    """Return the 1x1 convolution to the logits, which starts near even odds.

    Large first logits, all of them wrong, would throw a pretrained backbone off its features.
    """
    layer = nn.Conv2d(inputs, num_outputs, 1)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.get_parameter("bias"))
    return layer
