"""From a file's voxels to what lies in the store and what the network sees, and back again.

A prepared case is a stack of 2D images (Z, C, h, w) whose range stands for [0, 1]: uint8 divided by 255, or
float16. With ``preprocessing.neighbours`` the slices or frames beside each one are further channels. Sizes change
by ``preprocessing.size_mode``; ``restore`` brings probabilities back to the file's grid.

Shrinking averages areas; enlarging is cubic for images and linear for probabilities. Label maps are resized
class by class, and each pixel gets the class with the largest share of it: no new value appears, borders lie
where the image's borders lie, and measured against picking the nearest pixel it loses less Dice.
"""

import cv2
import numpy as np

from fmseg.errors import BadData
from fmseg.imaging.case import Array, Geometry, is_grey
from fmseg.imaging.cleaning import cleaned
from fmseg.imaging.intensity import histogram, scale, values_of
from fmseg.records.plans import Preprocessing

#: of red, green and blue in brightness, ITU-R BT.601
BRIGHTNESS = (0.299, 0.587, 0.114)
#: a share of one half, of 255
HALF = 128


def prepared_size(
    size_yx: tuple[int, int], spacing_yx: tuple[float, float] | None, preprocessing: Preprocessing
) -> tuple[int, int]:
    """Return (h, w) of a prepared image.

    fit: the side that is longest relative to ``image_size`` gets exactly that length, the other one keeps the
    aspect, rounded half up. spacing: each side keeps its length in mm. Never below 1.
    Raises BadData in mode spacing for an image without a pixel size.
    """
    height, width = size_yx
    if preprocessing.size_mode == "fit":
        most_height, most_width = preprocessing.image_size
        if height * most_width >= width * most_height:
            return most_height, max(1, (2 * width * most_height + height) // (2 * height))
        return max(1, (2 * height * most_width + width) // (2 * width)), most_width
    target = preprocessing.spacing_mm
    if target is None or spacing_yx is None:
        raise BadData(
            "The plan resamples to a pixel size in mm, but this image has none. Use files that carry it (.nii.gz, "
            ".mha, .nrrd), write it into spacings.csv beside the images (case,spacing_mm), or plan anew with all "
            "images in the dataset."
        )
    return (
        max(1, int(height * spacing_yx[0] / target[0] + 0.5)),
        max(1, int(width * spacing_yx[1] / target[1] + 0.5)),
    )


def prepare(voxels: Array, geometry: Geometry, preprocessing: Preprocessing) -> Array:
    """Turn a file's voxels (C, Z, Y, X) into (Z, C, h, w), uint8 or float16 as planned.

    Raises BadData if type or number of channels do not fit the plan.
    """
    channels = _with_channels(cleaned(voxels, geometry, preprocessing), preprocessing.file_channels)
    size = _size_of(channels.shape[2:], geometry, preprocessing)
    ready = [_to_unit_range(channel, index, preprocessing) for index, channel in enumerate(channels)]
    dtype = np.dtype(preprocessing.store_dtype)
    prepared = np.empty((channels.shape[1], len(channels), *size), dtype)
    for index, channel in enumerate(ready):
        for z, plane in enumerate(channel):
            prepared[z, index] = _stored(_resize(plane, size, cv2.INTER_CUBIC), dtype)
    return with_neighbours(prepared, preprocessing.neighbours)


def with_neighbours(prepared: Array, count: int) -> Array:
    """Turn (Z, C, h, w) into (Z, (2 * count + 1) * C, h, w): the ``count`` slices before each one, it, those behind."""
    if not count:
        return prepared
    last = len(prepared) - 1
    offsets = range(-count, count + 1)
    return np.concatenate([prepared[np.clip(np.arange(last + 1) + by, 0, last)] for by in offsets], axis=1)


def prepare_label(labels: Array, geometry: Geometry, preprocessing: Preprocessing) -> Array:
    """Turn a label map (Z, Y, X) into (Z, h, w): uint8, or int16 if a value is above 255."""
    return scale_label(labels, _size_of(labels.shape[1:], geometry, preprocessing))


def scale_label(labels: Array, size: tuple[int, int]) -> Array:
    """Turn a label map (Z, Y, X) into (Z, *size): uint8, or int16 if a value is above 255."""
    dtype = np.int16 if labels.max(initial=0) > 255 else np.uint8
    return np.stack([_resize_labels(plane.astype(dtype), size) for plane in labels])


def restore(probabilities: Array, shape_zyx: tuple[int, int, int]) -> Array:
    """Bring (K, Z, h, w) back to the grid of the file: (K, Z, Y, X) float32. Sums over K are kept."""
    restored = np.empty((len(probabilities), *shape_zyx), np.float32)
    for index, output in enumerate(probabilities):
        for z, plane in enumerate(output):
            restored[index, z] = _resize(np.asarray(plane, np.float32), shape_zyx[1:], cv2.INTER_LINEAR)
    return restored


def centred(image: Array, size: tuple[int, int]) -> Array:
    """Return (C, H, W) with an image (C, h, w) in its middle, black around; larger ones lose their borders."""
    placed = np.zeros((len(image), *size), image.dtype)
    here, there = [], []
    for have, want in zip(image.shape[1:], size, strict=True):
        first, length = (have - want) // 2, min(have, want)
        here.append(slice(max(first, 0), max(first, 0) + length))
        there.append(slice(max(-first, 0), max(-first, 0) + length))
    placed[:, there[0], there[1]] = image[:, here[0], here[1]]
    return placed


def to_network(image: Array, mean: tuple[float, ...], std: tuple[float, ...]) -> Array:
    """Turn a stored image (C, h, w) into the network's input: float32, (value in [0, 1] - mean) / std."""
    full = 255.0 if image.dtype == np.uint8 else 1.0
    factor = 1 / (full * np.array(std))
    offset = np.array(mean) / np.array(std)
    values = image.astype(np.float32)
    values *= factor.astype(np.float32)[:, None, None]
    values -= offset.astype(np.float32)[:, None, None]
    return values


def _with_channels(voxels: Array, channels: int) -> Array:
    """Return ``channels`` channels: RGB becomes brightness, grey is repeated."""
    if len(voxels) == channels:
        return voxels
    if len(voxels) == 3 and channels == 1:
        return voxels[:1] if is_grey(voxels) else _brightness(voxels)
    if len(voxels) == 1 and channels == 3:
        return np.repeat(voxels, 3, axis=0)
    raise BadData(
        f"The image has {len(voxels)} channels, the plan was made for {channels}. Give one file per channel, named "
        "_0000, _0001 ... in the order of 'channel_names'."
    )


def _brightness(voxels: Array) -> Array:
    bright = np.tensordot(np.array(BRIGHTNESS, np.float32), voxels.astype(np.float32), axes=1)
    if voxels.dtype.kind in "iu":
        bright = np.rint(bright)
    return bright.astype(voxels.dtype)[None]


def _to_unit_range(channel: Array, index: int, preprocessing: Preprocessing) -> Array:
    """Map (Z, Y, X) to float32 in [0, 1]; 8-bit images that stay 8-bit are left as they are."""
    if preprocessing.intensity == "eight_bit":
        if channel.dtype != np.uint8:
            raise BadData(
                f"The image is {channel.dtype}, the plan was made for 8-bit images. Save it with 8 bits as the others."
            )
        return channel if preprocessing.store_dtype == "uint8" else scale(channel, (0.0, 255.0))
    if preprocessing.intensity == "fixed_window":
        return scale(channel, preprocessing.window[index])
    counted = histogram(channel)
    return scale(channel, counted.window()) if counted else np.zeros(channel.shape, np.float32)


def _stored(plane: Array, dtype: np.dtype) -> Array:
    if plane.dtype == dtype:
        return plane
    plane = np.clip(plane, 0, 1)  # cubic curves overshoot
    return np.rint(plane * 255).astype(dtype) if dtype == np.uint8 else plane.astype(dtype)


def _size_of(size_yx: tuple[int, ...], geometry: Geometry, preprocessing: Preprocessing) -> tuple[int, int]:
    spacing = geometry.spacing_mm
    return prepared_size((size_yx[0], size_yx[1]), spacing and (spacing[1], spacing[2]), preprocessing)


def _resize(plane: Array, size: tuple[int, int], enlarge: int) -> Array:
    """Resize (Y, X) to ``size``: the axes that shrink by averaging areas, then those that grow by ``enlarge``."""
    smaller = (min(plane.shape[0], size[0]), min(plane.shape[1], size[1]))
    if smaller != plane.shape:
        plane = cv2.resize(plane, smaller[::-1], interpolation=cv2.INTER_AREA)
    if size != plane.shape:
        plane = cv2.resize(plane, size[::-1], interpolation=enlarge)
    return plane


def _resize_labels(plane: Array, size: tuple[int, int]) -> Array:
    """Resize (Y, X); each pixel gets the value with the largest share of it, the highest one if shares are equal."""
    if plane.shape == size:
        return plane
    lowest, *others = values_of(plane)
    resized: Array = np.full(size, lowest, plane.dtype)
    if len(others) == 1:
        resized[_share(plane, others[0], size) >= HALF] = others[0]
        return resized
    best = _share(plane, lowest, size) if others else resized
    for value in others:
        share = _share(plane, value, size)
        larger = share >= best
        best[larger] = share[larger]
        resized[larger] = value
    return resized


def _share(plane: Array, value: int, size: tuple[int, int]) -> Array:
    """Return how much of each pixel of the new size has ``value``, from 0 to 255."""
    return _resize((plane == value).view(np.uint8) * np.uint8(255), size, cv2.INTER_LINEAR)
