"""What the network's outputs mean: of a label map, or of a whole case."""

from fmseg.records.record import Part

#: between the classes of a case that shows several
SEPARATOR = ";"


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


class ClassScheme(Part):
    """The outputs of a classification network: output i is ``names[i]``."""

    names: tuple[str, ...]
    #: whether each case is of exactly one class (softmax), rather than of any number of them (sigmoid)
    is_exclusive: bool

    @property
    def num_outputs(self) -> int:
        """Number of outputs."""
        return len(self.names)


#: what the outputs of any trained network mean
OutputScheme = LabelScheme | ClassScheme


def split_classes(label: str) -> tuple[str, ...]:
    """Return the classes of a case's label, as in ``effusion;mass``; none for an empty one."""
    return tuple(part.strip() for part in label.split(SEPARATOR) if part.strip())


def is_labelled(label: str, scheme: ClassScheme) -> bool:
    """Return whether a label says something: an empty one does only where a case may be of no class."""
    return bool(label) or not scheme.is_exclusive
