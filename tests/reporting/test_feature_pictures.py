from io import BytesIO

import numpy as np
from PIL import Image

from fmseg.reporting.feature_pictures import attention_picture, feature_picture, principal_colours, to_grey


def made(seed=0):
    """An image with a bright disc, and features that know disc from background, and left from right in the disc."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:6, :8]
    disc = (y - 2.5) ** 2 + (x - 3.5) ** 2 < 6
    kind = np.where(disc, 1 + (x > 3), 0)
    centres = np.random.default_rng(9).normal(0, 1, (3, 16)) + np.array([[0], [4], [4]])
    features = centres[kind] + rng.normal(0, 0.05, (6, 8, 16))
    image = np.where(disc, 200, 2).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    return image, features.astype(np.float32), kind


def test_the_foreground_is_what_is_brighter_and_one_kind_has_one_colour_in_all_images():
    parts = [made(seed) for seed in (0, 1)]
    colours = principal_colours([features for _, features, _ in parts], [image[::8, ::8] for image, _, _ in parts])
    for (_, _, kind), colour in zip(parts, colours, strict=True):
        assert (colour[kind == 0] == 0).all()
        assert (colour[kind > 0].max(-1) > 0).mean() > 0.9
    means = [[colour[kind == k].mean(0) for k in (1, 2)] for (_, _, kind), colour in zip(parts, colours, strict=True)]
    for first, second in zip(*means, strict=True):
        assert abs(first[0] - second[0]) < 0.1, "the same kind in two images, by the component that parts them"
    assert abs(means[0][0][0] - means[0][1][0]) > 0.5, "two kinds in one image"


def test_images_of_two_kinds_are_both_coloured_and_dark_places_inside_too():
    _, features, _ = made()
    grey = np.full((6, 8), 90, np.uint8)
    grey[:, 0] = 0  # beside the sector
    grey[2, 3] = 0  # fluid
    shifted = [features, features + 20]  # what differs most is which image it is
    for colour in principal_colours(shifted, [grey, grey]):
        assert (colour[:, 0] == 0).all()
        assert (colour[:, 1:].max(-1) > 0).mean() > 0.9


def test_pictures_are_pngs_the_same_each_time():
    image, features, kind = made()
    attention = np.stack([kind == 1, kind == 2]).astype(np.float32) / kind.size
    for draw, values in ((attention_picture, attention), (feature_picture, features)):
        one, two = (draw([image, image], [values, values]) for _ in range(2))
        assert one == two
        picture = np.asarray(Image.open(BytesIO(one)).convert("RGB"))
        assert min(picture.shape[:2]) > 200
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


def test_features_without_any_difference_can_be_drawn():
    image, features, _ = made()
    assert feature_picture([image], [np.zeros_like(features)])


def test_stored_images_become_grey():
    image = np.stack([np.full((2, 2), value, np.uint8) for value in (0, 100, 200)])
    assert (to_grey(image) == 100).all()
    assert (to_grey(np.full((1, 2, 2), 0.5, np.float16)) == 127).all()
