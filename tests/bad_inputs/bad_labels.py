"""Datasets whose label maps are bad, or do not fit their images."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from sound import Bad, collected, cut, declare, discs, edit, image, label, link, pixels, save, save_volume, volume

LABEL_MAPS: list[Bad] = []
bad = collected(LABEL_MAPS)
HERE = "labelsTr/P00_0.png"


@bad("P00_0", "label map", "missing")
def label_map_missing(folder: Path) -> None:
    label(folder).unlink()


@bad(HERE, "no image")
def label_map_without_image(folder: Path) -> None:
    image(folder).unlink()


@bad("labelsTr", "label map", "missing")
def no_folder_of_label_maps(folder: Path) -> None:
    (folder / "labelsTr").rename(folder / "masks")


@bad("labelsTr", "folder")
def file_in_the_place_of_the_label_maps(folder: Path) -> None:
    (folder / "labelsTr").rename(folder / "masks")
    (folder / "labelsTr").write_text("masks lie elsewhere")


@bad(HERE, "empty (0 bytes)")
def empty_file_for_a_label_map(folder: Path) -> None:
    label(folder).write_bytes(b"")


@bad(HERE, "ends too early")
def half_a_label_map(folder: Path) -> None:
    cut(label(folder))


@bad(HERE, "folder")
def folder_called_like_a_label_map(folder: Path) -> None:
    label(folder).unlink()
    (folder / "labelsTr" / "P00_0.png").mkdir()


@bad(HERE, "link")
def link_to_no_label_map(folder: Path) -> None:
    link(label(folder), "nowhere.png")


@bad(HERE, "(1, 48, 39)", "(1, 48, 40)")
def label_map_one_pixel_narrower(folder: Path) -> None:
    edit(label(folder), lambda values: values[:, :-1])


@bad(HERE, "(1, 40, 48)", "(1, 48, 40)")
def label_map_on_its_side(folder: Path) -> None:
    edit(label(folder), np.transpose)


@bad(HERE, "3", "declared are 0, 1, 2")
def label_value_not_declared(folder: Path) -> None:
    edit(label(folder), lambda values: np.where(values == 2, 3, values).astype(np.uint8))


@bad(HERE, "255", "write it as 1")
def label_maps_of_0_and_255(folder: Path) -> None:
    for path in (folder / "labelsTr").iterdir():
        edit(path, lambda values: (values > 0).astype(np.uint8) * 255)


@bad(HERE, "128")
def label_map_smoothed(folder: Path) -> None:
    edit(label(folder), lambda values: np.where(values == 1, 128, values).astype(np.uint8))


@bad(HERE, "1.5")
def label_of_one_and_a_half(folder: Path) -> None:
    values = pixels(label(folder)).astype(np.float32)
    values[values == 1] = 1.5
    Image.fromarray(values).save(label(folder), format="TIFF")


@bad("P00_0.nii.gz", "1.5", base="nii")
def volume_with_label_of_one_and_a_half(folder: Path) -> None:
    values = volume(label(folder)).astype(np.float32)
    values[values == 1] = 1.5
    save_volume(label(folder), values)


@bad("P00_0.nii.gz", "nan", base="nii")
def label_of_no_number(folder: Path) -> None:
    values = volume(label(folder)).astype(np.float32)
    values[values == 1] = np.nan
    save_volume(label(folder), values)


@bad("P00_0.nii.gz", "-1", base="nii")
def negative_label(folder: Path) -> None:
    values = volume(label(folder)).astype(np.int16)
    values[values == 1] = -1
    save_volume(label(folder), values)


@bad("P00_0.nii.gz", "inf", base="nii")
def infinite_label(folder: Path) -> None:
    values = volume(label(folder)).astype(np.float32)
    values[values == 1] = np.inf
    save_volume(label(folder), values)


@bad("P00_0.nii.gz", "(2, 24, 20)", base="nii")
def label_map_of_fewer_slices(folder: Path) -> None:
    save_volume(label(folder), volume(label(folder))[:2])


@bad("P00_0.nii.gz", "channels", base="nii")
def label_map_of_four_axes(folder: Path) -> None:
    save_volume(label(folder), np.stack([volume(label(folder))] * 2))


@bad("P00_0.nii.gz", "spacing", base="nii")
def label_map_of_another_spacing(folder: Path) -> None:
    save_volume(label(folder), volume(label(folder)), spacing=1.0)


@bad("P00_0.nii.gz", "origin", code=0, base="nii")
def label_map_at_another_place(folder: Path) -> None:
    save_volume(label(folder), volume(label(folder)), origin=25.0)


@bad("P00_0.nii.gz", "direction", base="nii")
def label_map_mirrored(folder: Path) -> None:
    save_volume(label(folder), volume(label(folder)), spacing=-0.5, pixdim=[1, 0.5, 0.5, 2, 0, 0, 0, 0])


@bad(HERE, "colour image")
def label_map_in_colours(folder: Path) -> None:
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)
    edit(label(folder), lambda values: colours[values])


@bad("dataset.json", "'mask_colors'", "fmseg convert masks", "-d 502")
def colours_of_masks_declared(folder: Path) -> None:
    declare(folder, mask_colors={"head": "#ff0000", "organ": "#00ff00"})
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)
    for path in sorted((folder / "labelsTr").iterdir()):
        edit(path, lambda values: colours[values])


@bad("labelsTr", "thin lines", "fmseg convert masks", code=0)
def label_maps_of_outlines(folder: Path) -> None:
    declare(folder, labels={"background": 0, "head": 1})
    for path in sorted((folder / "labelsTr").iterdir()):
        drawn = (pixels(path) > 0).astype(np.uint8)
        edit(path, lambda _, drawn=drawn: drawn - cv2.erode(drawn, np.ones((3, 3), np.uint8)))


@bad(HERE, "7", "declared are 0, 1, 2")
def palette_with_a_value_too_many(folder: Path) -> None:
    values = pixels(label(folder)).copy()
    values[values == 2] = 7
    image_ = Image.fromarray(values).convert("P")
    image_.putdata(values.ravel().tolist())
    image_.save(label(folder))


@bad("P00_0", "no background", code=0)
def label_map_inside_out(folder: Path) -> None:
    edit(label(folder), lambda values: np.where(values == 0, 1, 2).astype(np.uint8))


@bad("P00_0", "pieces", code=0)
def label_map_of_noise(folder: Path) -> None:
    edit(label(folder), lambda values: (np.random.default_rng(0).random(values.shape) < 0.1).astype(np.uint8))


@bad("P00_0", "1 pixel", code=0)
def label_map_of_one_pixel(folder: Path) -> None:
    def speck(values: np.ndarray) -> np.ndarray:
        empty = np.zeros_like(values)
        empty[3, 3] = 1
        return empty

    edit(label(folder), speck)


@bad(HERE, "ends too early")
def label_map_without_its_end(folder: Path) -> None:
    label(folder).write_bytes(label(folder).read_bytes()[:-12])


@bad("labelsTr/P00_0.jpg", "JPEG")
def label_map_as_jpeg(folder: Path) -> None:
    drawn = pixels(label(folder))
    label(folder).unlink()
    Image.fromarray(drawn).save(folder / "labelsTr" / "P00_0.jpg")


@bad(HERE, "JPEG")
def jpeg_called_png_for_a_label_map(folder: Path) -> None:
    Image.fromarray(pixels(label(folder))).save(label(folder), format="JPEG", quality=100)


@bad(HERE, "2 pages", "Save each page")
def label_map_of_several_pages(folder: Path) -> None:
    pages = [Image.fromarray(discs(number)[1]) for number in range(2)]
    pages[0].save(label(folder), format="TIFF", save_all=True, append_images=pages[1:])


@bad(HERE, "empty", code=0)
def one_label_map_without_foreground(folder: Path) -> None:
    edit(label(folder), np.zeros_like)


@bad("labelsTr", "nothing")
def all_label_maps_without_foreground(folder: Path) -> None:
    for path in (folder / "labelsTr").iterdir():
        edit(path, np.zeros_like)


@bad("organ", "no label map", code=0)
def class_that_nobody_has_drawn(folder: Path) -> None:
    for path in (folder / "labelsTr").iterdir():
        edit(path, lambda values: np.minimum(values, 1))


@bad("P00_0.png", "P00_0.nii.gz", "two", code=0)
def two_label_maps_for_one_image(folder: Path) -> None:
    save_volume(folder / "labelsTr" / "P00_0.nii.gz", pixels(label(folder))[None])


@bad("labelsTr/P00_0.png", "same pixels")
def label_map_in_the_place_of_its_image(folder: Path) -> None:
    image(folder).write_bytes(label(folder).read_bytes())


@bad("labelsTr/P00_0.png", "shows nothing", code=0)
def label_map_made_visible_in_the_place_of_its_image(folder: Path) -> None:
    save(image(folder), pixels(label(folder)) * np.uint8(100))


@bad("labelsTr", "P00_0_head.png", "fmseg convert masks")
def a_mask_for_each_class_of_each_image(folder: Path) -> None:
    for path in list((folder / "labelsTr").iterdir()):
        values = pixels(path)
        for value, name in enumerate(("head", "organ"), start=1):
            save(path.with_name(f"{path.stem}_{name}.png"), (values == value).astype(np.uint8))
        path.unlink()


@bad("labelsTr", "head/", "fmseg convert masks")
def a_folder_of_masks_for_each_class(folder: Path) -> None:
    for path in list((folder / "labelsTr").iterdir()):
        (folder / "labelsTr" / "head").mkdir(exist_ok=True)
        path.rename(folder / "labelsTr" / "head" / path.name)


@bad("labelsTr", "P00_0_0000.png", "fmseg convert masks")
def label_maps_with_the_number_of_a_channel(folder: Path) -> None:
    for path in list((folder / "labelsTr").iterdir()):
        path.rename(path.with_name(f"{path.stem}_0000.png"))


@bad("P00_0", "P01_0", "same label map", code=0)
def one_label_map_for_two_images(folder: Path) -> None:
    label(folder, "P01_0").write_bytes(label(folder).read_bytes())


@bad("labelsTs/P50_0.png", "(1, 48, 39)")
def test_label_map_of_another_size(folder: Path) -> None:
    picture, drawn = discs(60)
    save(folder / "imagesTs" / "P50_0_0000.png", picture)
    save(folder / "labelsTs" / "P50_0.png", drawn[:, :-1])


@bad("labelsTs/P51_0.png", "no image")
def test_label_map_without_image(folder: Path) -> None:
    picture, drawn = discs(60)
    save(folder / "imagesTs" / "P50_0_0000.png", picture)
    save(folder / "labelsTs" / "P50_0.png", drawn)
    save(folder / "labelsTs" / "P51_0.png", discs(61)[1])


@bad("labelsTs/P50_0.png", "9", "declared")
def test_label_map_with_a_value_not_declared(folder: Path) -> None:
    picture, drawn = discs(60)
    save(folder / "imagesTs" / "P50_0_0000.png", picture)
    save(folder / "labelsTs" / "P50_0.png", np.where(drawn == 2, 9, drawn).astype(np.uint8))


@bad(HERE, "ignore", code=0)
def everything_ignored(folder: Path) -> None:
    declare(folder, labels={"background": 0, "head": 1, "organ": 2, "ignore": 3})
    edit(label(folder), lambda values: np.full_like(values, 3))
