"""How exported networks are used without fmseg: what is done before them and after them (fmseg.json beside them)."""

from typing import ClassVar, Literal

from fmseg.records.bundle import Origin
from fmseg.records.labels import OutputScheme
from fmseg.records.plans import Architecture, Preprocessing
from fmseg.records.record import Part, Record
from fmseg.records.selection import CleanUp


class Network(Part):
    """One network of an ensemble."""

    file: str
    sha256: str
    #: its share in the average, relative to the others
    share: float
    recipe: str
    architecture: Architecture
    #: the input is (B, C, height, width) float32, (value in [0, 1] - mean) / std
    input_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    #: largest difference of its logits from those of the network in fmseg, on made images; None where none was run
    largest_difference: float | None


class Windows(Part):
    """How an image that is larger than the input is cut, and its answers merged."""

    #: of neighbouring windows, as share of their side
    overlap: float
    #: of a window's weights, a Gaussian around its middle, as share of its side; and the least weight
    sigma: float
    min_weight: float


class Description(Record):
    """All that stands between an image file and an answer, besides the networks."""

    VERSION: ClassVar[int] = 1

    name: str
    task: Literal["segmentation", "classification"]
    modality: str
    licence: str
    origins: tuple[Origin, ...]
    #: in words, in order; the numbers stand below
    steps: tuple[str, ...]
    preprocessing: Preprocessing
    networks: tuple[Network, ...]
    #: "horizontal", "vertical"; the answers of every combination, turned back, are averaged
    mirror_axes: tuple[str, ...]
    #: None for classes of whole images
    windows: Windows | None
    outputs: OutputScheme
    #: of logits to probabilities
    activation: Literal["softmax", "sigmoid"]
    #: divides the logits of the averaged probabilities of classes
    temperature: float
    clean_up: tuple[CleanUp, ...]
