"""What was decided: every number of preprocessing, pretraining and finetuning, each with its reason."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from fmseg.records.labels import OutputScheme
from fmseg.records.recipe import Recipe
from fmseg.records.record import Part, Record

Precision = Literal["float32", "bfloat16", "float16"]


class Hardware(Part):
    """What the plan was made for."""

    device: Literal["cpu", "cuda", "mps"]
    num_devices: int
    #: of one device; of the machine for a CPU
    memory_gb: float
    num_cores: int
    has_bfloat16: bool
    #: sustained training speed of one device, a rule of thumb from its kind
    gflops: float


class Reason(Part):
    """Why a number is what it is."""

    #: dotted path of the number, as in ``pretraining.patch_size``
    key: str
    #: the rule, in words, and the facts that it was applied to
    because: str


class Preprocessing(Part):
    """How an image becomes what lies in the store, and what the network sees of it."""

    #: fit: scaled, aspect kept, until it fits into ``image_size``; spacing: resampled to ``spacing_mm``
    size_mode: Literal["fit", "spacing"]
    #: (height, width) in pixels
    image_size: tuple[int, int]
    #: (y, x) in mm; None in mode fit
    spacing_mm: tuple[float, float] | None
    #: channels of the network's input: 1 for grey images saved as RGB; those of its neighbours included
    channels: int
    #: to [0, 1]: of the 8-bit range, between percentiles of each image, or between two fixed values of the set
    intensity: Literal["eight_bit", "image_percentiles", "fixed_window"]
    #: the two fixed values per channel; empty otherwise
    window: tuple[tuple[float, float], ...]
    #: of the images in [0, 1], whole set, per channel: the network sees (value - mean) / std
    mean: tuple[float, ...]
    std: tuple[float, ...]
    store_dtype: Literal["uint8", "float16"]
    #: slices or frames on each side that are shown as further channels; the first and last slice stand for those
    #: that are not there
    neighbours: int = Field(default=0, ge=0, le=8, exclude_if=lambda value: not value)

    #: of ultrasound, beside the scan sector: kept, made black, or black and cut to the sector's box
    outside: Literal["keep", "black", "crop"] = Field(default="keep", exclude_if=lambda value: value == "keep")
    #: calipers, text and rulers on the scan: kept, or painted over
    marks: Literal["keep", "remove"] = Field(default="keep", exclude_if=lambda value: value == "keep")

    @property
    def file_channels(self) -> int:
        """Channels of one slice."""
        return self.channels // (2 * self.neighbours + 1)


class Architecture(Part):
    """A ViT: a plain one, unless one of the last fields, which other people's weights need, says otherwise."""

    name: str
    # bounds that no network comes near: a file from elsewhere must not ask for more than a machine has
    patch_size: int = Field(ge=1, le=256)
    width: int = Field(ge=1, le=2**15)
    depth: int = Field(ge=1, le=1000)
    num_heads: int = Field(ge=1, le=1024)
    mlp_ratio: float = Field(gt=0, le=64)
    ffn: Literal["mlp", "swiglu"]
    num_registers: int = Field(ge=0, le=1024)
    #: initial LayerScale; None for no LayerScale
    layer_scale: float | None
    layer_norm_eps: float
    channels: int = Field(ge=1, le=1024)
    #: (height, width) of the images that the position embedding was made for
    image_size: tuple[int, int]
    #: how the position grid is resampled: by size, or by DINOv2's scale factor with offset 0.1
    position_interpolation: Literal["size", "offset"]
    position_antialias: bool
    #: of the MLP; a gated one (swiglu) has its own
    activation: Literal["gelu", "gelu_tanh", "quick_gelu"] = "gelu"
    class_token: bool = True
    #: whether the tokens carry an embedding of their position
    absolute_positions: bool = True
    #: what attention knows of positions: nothing; rotations of queries and keys (RoPE); a table of biases by distance;
    #: biases by the query and its distance along each axis
    relation: Literal["none", "rotary", "table", "decomposed"] = "none"
    #: side, in patches, of the windows that attention stays within, only with "decomposed"; 0: no windows
    window: int = 0
    #: blocks, counted from 0, that attend to the whole image in spite of ``window``
    global_blocks: tuple[int, ...] = ()
    #: LayerNorm before the first block, and after the last
    input_norm: bool = False
    output_norm: bool = True

    @property
    def peculiar(self) -> tuple[str, ...]:
        """Names of the fields by which this is no plain ViT; empty for a plain one."""
        fields = type(self).model_fields
        return tuple(
            name for name in fields if not fields[name].is_required() and getattr(self, name) != fields[name].default
        )

    @model_serializer(mode="wrap")
    def _plainly(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Say what sets a ViT apart from a plain one only where it does: records of plain ones stay as they were."""
        values: dict[str, Any] = dump(self)
        fields = type(self).model_fields
        return {name: value for name, value in values.items() if fields[name].is_required() or name in self.peculiar}

    @property
    def min_parameters(self) -> int:
        """Number of weights that it has at least: of attention and of the position embedding."""
        tokens = (self.image_size[0] // self.patch_size) * (self.image_size[1] // self.patch_size)
        return 4 * self.depth * self.width**2 + tokens * self.width


class Views(Part):
    """The crops that the student and the teacher see, and how they are changed."""

    #: (height, width) in pixels
    global_size: tuple[int, int]
    local_size: tuple[int, int]
    num_locals: int
    #: range of a crop's share of the image area
    global_scale: tuple[float, float]
    local_scale: tuple[float, float]
    aspect: tuple[float, float]
    flip: Literal["none", "horizontal", "vertical"]
    jitter_probability: float
    brightness: float
    contrast: float
    #: probability of a Gaussian blur of the first, second global and the local crops
    blur_probability: tuple[float, float, float]
    blur_sigma_px: tuple[float, float]
    #: of the second global crop
    solarize_probability: float
    #: a crop is drawn anew (ten times at most) while less than this share of it is non-black
    min_content: float


class FinePhase(Part):
    """The end of a pretraining, on views of more pixels."""

    #: (height, width) in pixels
    global_size: tuple[int, int]
    local_size: tuple[int, int]
    iterations: int
    batch_size: int
    accumulation: int
    checkpointing: bool
    learning_rate: float


class Pretraining(Part):
    """DINOv2 on one modality's unlabelled images."""

    architecture: Architecture
    views: Views
    mean: tuple[float, ...]
    std: tuple[float, ...]
    # heads
    num_prototypes: int
    head_hidden: int
    head_bottleneck: int
    shared_head: bool
    trainable_gain: bool
    # targets and losses
    centering: Literal["softmax", "sinkhorn"]
    center_momentum: float
    student_temperature: float
    teacher_temperature: tuple[float, float]
    temperature_warmup_iterations: int
    dino_weight: float
    ibot_weight: float
    koleo_weight: float
    #: in how many of 64 bits the looks of two images of one patient differ at least, or only one is used; 0 uses all
    min_difference: int = 0
    #: of guessing the grey values of masked patches, which teaches before the teacher knows anything
    pixel_weight: float = 0.0
    #: of telling the batch's images apart, and its masked patches, by the teacher's rows: teaches from the first step
    contrast_weight: float = 0.0
    patch_contrast_weight: float = 0.0
    contrast_temperature: float = 0.2
    mask_probability: float
    mask_ratio: tuple[float, float]
    drop_path: float
    # optimisation
    batch_size: int
    accumulation: int
    #: whether the backward pass computes each layer anew: the same result, less memory, more time
    checkpointing: bool = False
    #: whether torch compiles each layer: the same result up to rounding, sooner; the first step takes a minute longer
    compile: bool = False
    #: with several devices: each holds the whole network (ddp), or a part of it (fsdp)
    sharding: Literal["ddp", "fsdp"] = "ddp"
    iterations: int
    warmup_iterations: int
    freeze_last_layer_iterations: int
    learning_rate: float
    min_learning_rate: float
    weight_decay: tuple[float, float]
    layer_decay: float
    patch_embed_factor: float
    teacher_momentum: tuple[float, float]
    clip_norm: float
    precision: Precision
    seed: int
    #: after all of the iterations above; None for none
    fine: FinePhase | None = None


class Plans(Record):
    """The single truth of a dataset: what it is, how it is prepared, pretrained on and trained."""

    VERSION: ClassVar[int] = 1

    name: str
    dataset: str
    task: Literal["segmentation", "classification", "unlabelled"]
    modality: str
    #: of the fingerprint; a store or run made under another one is refused
    content_hash: str
    #: what the outputs of a trained network mean; None for an unlabelled dataset
    labels: OutputScheme | None
    #: the reader that dataset.json asks for; None for the one that a file's ending asks for
    reader: str | None = None
    hardware: Hardware
    preprocessing: Preprocessing
    pretraining: Pretraining
    #: the numbers common to all recipes; None for an unlabelled dataset
    finetuning: Recipe | None
    #: the recipes that ``fmseg train 501`` runs
    recipes: tuple[str, ...]
    #: axes of test-time mirroring: "horizontal", "vertical"
    mirror_axes: tuple[str, ...]
    because: tuple[Reason, ...]


class Fold(Part):
    """Case names of one fold."""

    train: tuple[str, ...]
    val: tuple[str, ...]


def spread(cases: Sequence[str], most: int) -> tuple[str, ...]:
    """Return at most ``most`` cases, evenly spaced: the first ones by name are often the first ones by date."""
    return tuple(cases[:: 1 + (len(cases) - 1) // most]) if cases else ()
