"""What the network's outputs mean: classes (softmax) or overlapping regions (sigmoid), and what is ignored."""

from fmseg.records.record import Part


class LabelScheme(Part):
    """The outputs of a segmentation network and the label values that they stand for.

    Classes: output 0 is the background, output i+1 is ``names[i]``. Regions (nnU-Net's): output i is
    ``names[i]``, a union of label values; overlaps are painted in order, so later regions win.
    """

    #: the foreground classes or regions, in the order of the outputs
    names: tuple[str, ...]
    #: the label values that belong to each of them
    values: tuple[tuple[int, ...], ...]
    #: the value painted for each of them in a prediction
    painted: tuple[int, ...]
    has_regions: bool
    #: pixels of this value count neither in the loss nor in the scores
    ignore: int | None

    @property
    def num_outputs(self) -> int:
        """Number of output maps: with the background for classes, without it for regions."""
        return len(self.names) + (0 if self.has_regions else 1)

    @property
    def declared(self) -> tuple[int, ...]:
        """All label values that a label map may hold, sorted, background and ignore included."""
        found = {0} | {value for group in self.values for value in group}
        return tuple(sorted(found | ({self.ignore} if self.ignore is not None else set())))
