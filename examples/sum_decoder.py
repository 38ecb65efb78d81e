"""A decoder of one's own, and a recipe that uses it: all that a plugin needs.

The features of all taps are brought to one width and added, a convolution looks at the neighbours, and another
one gives the logits. See docs/how-to/add-a-decoder.md.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from fmseg.networks.decoders import decoders, output_layer
from fmseg.records.recipe import changed, recipes


@decoders.register("sum")
class SumDecoder(nn.Module):
    """Adds up the taps, which must be of one size: those of fmseg's backbone are."""

    def __init__(self, channels: Sequence[int], strides: Sequence[int], *, num_outputs: int, width: int) -> None:
        super().__init__()
        self.narrow = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.mix = nn.Sequential(nn.GELU(), nn.Conv2d(width, width, 3, padding=1), nn.GELU())
        self.classify = output_layer(width, num_outputs)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return logits (B, K, h, w). features: one (B, channels[i], h, w) per tap."""
        taps = [narrow(tap) for narrow, tap in zip(self.narrow, features, strict=True)]
        return self.classify(self.mix(sum(taps)))


recipes.add("sum", changed(decoder="sum"))
