"""What the labelled cases of a run are like, in a few ranges that new images are compared with."""

from math import isfinite
from typing import Literal, Self

from pydantic import Field, model_validator

from fmseg.records.record import Part

Plane = Literal["sagittal", "coronal", "axial"]
Colour = Literal["grey", "coloured"]
#: in pixels, mm or as ratios
Size = Literal["pixel size", "pixel height by width", "slice distance", "slices", "mean side", "height by width"]
#: as shares of the range that the networks see
Tone = Literal["brightness", "contrast", "darkest parts", "brightest parts"]


class Ranges(Part):
    """Ranges over the labelled cases of a run, without the most extreme patients."""

    #: that the ranges were found in; a few find narrow ones
    num_patients: int = Field(ge=1)
    #: size -> (lowest, highest): mm, pixels, or ratios
    sizes: dict[Size, tuple[float, float]]
    #: likewise of intensities, as shares of the range that the networks see
    tones: dict[Tone, tuple[float, float]]
    #: how volumes are sliced; empty where nobody knows, or there are none
    planes: tuple[Plane, ...]
    #: grey images saved as RGB are grey; empty where channels are no colours
    colours: tuple[Colour, ...]

    @model_validator(mode="after")
    def _can_be_compared(self) -> Self:
        if not all(isfinite(end) for each in (*self.sizes.values(), *self.tones.values()) for end in each):
            raise ValueError("the ends of ranges must be finite")
        if not all(end > 0 for each in self.sizes.values() for end in each):
            raise ValueError("sizes must be above 0")
        return self
