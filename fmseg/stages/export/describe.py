"""What must be known to use exported networks without fmseg, in words and numbers."""

from collections.abc import Sequence
from typing import Literal

from fmseg.inference.members import outputs_of
from fmseg.inference.sliding import MIN_WEIGHT, OVERLAP, SIGMA_SHARE
from fmseg.inference.trained import Chosen
from fmseg.records.bundle import Bundle
from fmseg.records.description import Description, Network, Windows
from fmseg.records.labels import ClassScheme
from fmseg.records.plans import Preprocessing
from fmseg.records.run import RunConfig


def describe(bundle: Bundle, chosen: Chosen, config: RunConfig, networks: Sequence[Network]) -> Description:
    """Return the description of networks that were trained under one plan; config: of any of them."""
    outputs, preparation = outputs_of(config), config.plans.preprocessing
    is_classes = isinstance(outputs, ClassScheme)
    is_exclusive = outputs.is_exclusive if isinstance(outputs, ClassScheme) else not outputs.has_regions
    activation: Literal["softmax", "sigmoid"] = "softmax" if is_exclusive else "sigmoid"
    after = _classes(activation, is_exclusive) if is_classes else _label_map(activation, is_exclusive)
    return Description(
        name=bundle.name,
        task="classification" if is_classes else "segmentation",
        modality=bundle.modality,
        licence=bundle.licence,
        origins=bundle.origins,
        steps=(*_before(preparation), *(_centred() if is_classes else _windows()), *after),
        preprocessing=preparation,
        networks=tuple(networks),
        mirror_axes=config.plans.mirror_axes,
        windows=None if is_classes else Windows(overlap=OVERLAP, sigma=SIGMA_SHARE, min_weight=MIN_WEIGHT),
        outputs=outputs,
        activation=activation,
        temperature=chosen.temperature,
        clean_up=chosen.clean_up,
    )


def _before(preparation: Preprocessing) -> tuple[str, ...]:
    colours = (
        "Bring colours to one channel: 0.299 red + 0.587 green + 0.114 blue, rounded for whole numbers; equal channels "
        "give the first of them."
        if preparation.channels == 1
        else "Repeat the channel of a grey image where three channels are planned."
    )
    scales = {
        "eight_bit": "Divide 8-bit values by 255.",
        "image_percentiles": "Scale each channel of a case from the 0.5 and 99.5 percentiles of its finite values (its "
        "extremes where these are equal) to [0, 1], and clip.",
        "fixed_window": "Scale each channel from 'window' to [0, 1], and clip.",
    }
    sizes = {
        "fit": "Resize, aspect kept, until the image just fits into 'image_size'.",
        "spacing": "Resample to 'spacing_mm' per pixel (y, x).",
    }
    return (
        "Mirrorings are of whole images, before they are cut or centred.",
        "A volume or clip is a stack of 2D images, each taken by itself.",
        colours,
        scales[preparation.intensity],
        f"{sizes[preparation.size_mode]} Axes that shrink average areas, axes that grow are cubic; the result is "
        f"clipped{', and rounded to 8 bits' if preparation.store_dtype == 'uint8' else ''}.",
        "For each network: subtract 'mean' and divide by 'std'.",
    )


def _windows() -> tuple[str, ...]:
    return (
        "Centre an image that is smaller than 'input_size' on black, the odd row or column of black before it.",
        "Cut a larger one into windows of 'input_size' that begin every half window, the last one flush with the end.",
    )


def _centred() -> tuple[str, ...]:
    return ("Centre the image on black of 'input_size'; what is larger loses its borders.",)


def _label_map(activation: str, is_exclusive: bool) -> tuple[str, ...]:
    decision = (
        "Take the likeliest output per pixel: 0 is the background, i + 1 stands for names[i], painted as 'painted[i]'."
        if is_exclusive
        else "Paint each region i where its probability exceeds one half, with 'painted[i]', later ones over earlier."
    )
    return (
        f"Turn the logits (B, K, height, width) into probabilities by {activation}; merge windows by their Gaussian "
        "weights; average over mirrorings, then over networks by 'share'.",
        "Resize the probabilities to the image's own grid, linear where it grows, averaging where it shrinks.",
        decision,
        "Apply the rules of 'clean_up' in order.",
    )


def _classes(activation: str, is_exclusive: bool) -> tuple[str, ...]:
    decision = "Decide for the likeliest class." if is_exclusive else "Decide for every class above one half."
    return (
        f"Turn the logits (B, K) into probabilities by {activation}; average over mirrorings, over the images of a "
        "stack, then over networks by 'share'.",
        "Divide the logits of these probabilities by 'temperature'.",
        decision,
    )
