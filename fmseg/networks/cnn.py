"""Convolutional networks for whole images, as timm has them: what a ViT has to beat.

Their weights are random, or timm's, from ImageNet, where those lie on the disk already: nothing is ever downloaded.
"""

from functools import partial
from pathlib import Path

from torch import Tensor, nn

from fmseg.errors import BadData
from fmseg.networks.classifier import classifiers
from fmseg.networks.foreign_files import read_foreign
from fmseg.records.foundation import moments_for
from fmseg.records.plans import Architecture
from fmseg.records.recipe import Recipe

#: network of a recipe -> model of timm
TIMM_MODELS = {"resnet18": "resnet18", "resnet50": "resnet50", "efficientnetv2": "tf_efficientnetv2_s"}
FILE = "model.safetensors"


class TimmClassifier(nn.Module):
    """A network of timm; images of any size."""

    def __init__(self, model: str, channels: int, num_outputs: int, *, dropout: float) -> None:
        import timm

        super().__init__()
        # a plain mean: torch's adaptive pooling has no gradient on CUDA that is the same in every run
        options = {"in_chans": channels, "num_classes": num_outputs, "drop_rate": dropout, "global_pool": "fastavg"}
        self.net = timm.create_model(model, pretrained=False, **options)
        classify = self.net.get_classifier()
        # near even odds, as all heads start here
        nn.init.normal_(classify.weight, std=0.01)
        nn.init.zeros_(classify.bias)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, K), float32 under autocast too. image: (B, C, H, W), normalised."""
        logits: Tensor = self.net(image)
        return logits.float()


def find_weights(network: str, folder: Path) -> Path | None:
    """Return the file of timm's weights for a network: in ``folder``, or in the cache of the Hugging Face hub.

    None if it is in neither place.
    """
    import timm
    from huggingface_hub import try_to_load_from_cache

    own = folder / f"{TIMM_MODELS[network]}.safetensors"
    if own.exists():
        return own
    hub = timm.get_pretrained_cfg(TIMM_MODELS[network]).hf_hub_id
    cached = try_to_load_from_cache(hub, FILE)
    return Path(cached) if isinstance(cached, str) else None


def moments_of(network: str, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std, of images in [0, 1], that timm's weights of a network expect."""
    import timm

    known = timm.get_pretrained_cfg(TIMM_MODELS[network])
    return (known.mean, known.std) if channels == len(known.mean) else moments_for(known.mean, known.std, channels)


def load_timm_weights(network: TimmClassifier, path: Path) -> None:
    """Copy timm's weights into a network, all but the classifier; those of RGB are summed for grey images.

    Raises BadData naming the file and the first wrong tensor.
    """
    from timm.models import adapt_input_conv

    tensors = read_foreign(path).tensors
    config = network.net.pretrained_cfg
    head, stem = config["classifier"], f"{config['first_conv']}.weight"
    wanted = {name: value for name, value in network.net.state_dict().items() if not name.startswith(f"{head}.")}
    if stem in tensors:
        tensors[stem] = adapt_input_conv(wanted[stem].shape[1], tensors[stem])
    for name, value in wanted.items():
        if name not in tensors or tensors[name].shape != value.shape:
            raise BadData(f"{path}: the tensor '{name}' is missing, or of another shape. Get timm's own file.")
    network.net.load_state_dict({name: tensors[name] for name in wanted}, strict=False)


def build_cnn(recipe: Recipe, architecture: Architecture, num_outputs: int, *, model: str) -> TimmClassifier:
    """Build a network of timm with random weights: a function of torch's seed alone."""
    return TimmClassifier(model, architecture.channels, num_outputs, dropout=recipe.head_dropout)


for _name, _model in TIMM_MODELS.items():
    classifiers.add(_name, partial(build_cnn, model=_model))
