"""Datasets whose images are bad: damaged, not what they seem, odd ones out, or there twice."""

import gzip
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from sound import (
    Bad,
    collected,
    cut,
    declare,
    discs,
    edit,
    flip_bit,
    image,
    label,
    link,
    pixels,
    save,
    save_volume,
    volume,
)

IMAGES: list[Bad] = []
bad = collected(IMAGES)
HERE = "P00_0_0000"


@bad(HERE, "empty (0 bytes)")
def empty_image(folder: Path) -> None:
    image(folder).write_bytes(b"")


@bad(HERE, "ends too early")
def half_an_image(folder: Path) -> None:
    cut(image(folder))


@bad(HERE, "ends too early")
def image_without_its_last_bytes(folder: Path) -> None:
    cut(image(folder), 0.97)


@bad(HERE, "a checksum in it is wrong")
def flipped_bit_in_a_png(folder: Path) -> None:
    flip_bit(image(folder))


@bad(HERE, "no PNG, JPEG, BMP or TIFF")
def web_page_for_an_image(folder: Path) -> None:
    image(folder).write_text("<html>404 not found</html>")


@bad(HERE, "no PNG, JPEG, BMP or TIFF")
def gif_called_png(folder: Path) -> None:
    Image.fromarray(discs(0)[0]).save(image(folder), format="GIF")


@bad(HERE, "pixels")
def png_that_claims_too_much(folder: Path) -> None:
    content = bytearray(image(folder).read_bytes())
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    image(folder).write_bytes(content)


@bad(HERE, "cannot be read")
def png_with_a_text_bomb(folder: Path) -> None:
    content = image(folder).read_bytes()
    body = b"zTXt" + b"Comment\0\0" + zlib.compress(bytes(2**24), 9)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    image(folder).write_bytes(content[:33] + chunk + content[33:])


@bad(HERE, "1 x 1 pixels")
def image_of_one_pixel(folder: Path) -> None:
    for path in (image(folder), label(folder)):
        edit(path, lambda values: values[:1, :1])


@bad(HERE, "48 x 1 pixels")
def image_of_one_column(folder: Path) -> None:
    for path in (image(folder), label(folder)):
        edit(path, lambda values: values[:, :1])


@bad(HERE, "all pixels have the value 0", code=0)
def black_image(folder: Path) -> None:
    edit(image(folder), np.zeros_like)


@bad(HERE, "all pixels have the value 77", code=0)
def constant_image(folder: Path) -> None:
    edit(image(folder), lambda values: np.full_like(values, 77))


@bad("P00_0", "uint16")
def one_image_of_16_bits(folder: Path) -> None:
    edit(image(folder), lambda values: values.astype(np.uint16) * 257)


@bad("P00_0", "float32")
def one_image_of_floats(folder: Path) -> None:
    values = pixels(image(folder)).astype(np.float32) / 255
    Image.fromarray(values).save(image(folder), format="TIFF")


@bad("P00_0", "coloured", code=0)
def one_image_in_colour(folder: Path) -> None:
    edit(image(folder), lambda values: np.stack([values, values // 2, values // 3], -1))


@bad("P00_0", "grey", code=0, base="rgb")
def one_grey_image(folder: Path) -> None:
    edit(image(folder), lambda values: values[..., 0])


@bad(HERE, "transparency", code=0)
def image_with_alpha(folder: Path) -> None:
    edit(image(folder), lambda values: np.stack([values, np.full_like(values, 200)], -1))


@bad("P00_0", "3 pages", "Save each page")
def image_of_several_pages(folder: Path) -> None:
    pages = [Image.fromarray(discs(number)[0]) for number in range(3)]
    pages[0].save(image(folder), format="TIFF", save_all=True, append_images=pages[1:])


@bad("P00_0.png", "(1, 48, 40)", "(1, 40, 48)")
def image_turned_by_exif(folder: Path) -> None:
    kept = Image.fromarray(pixels(image(folder)))
    exif = kept.getexif()
    exif[0x0112] = 6
    kept.save(image(folder), exif=exif)


@bad("P00_0_0000.png", "folder")
def folder_called_like_an_image(folder: Path) -> None:
    image(folder).unlink()
    (folder / "imagesTr" / "P00_0_0000.png").mkdir()


@bad("P09_0_0000.png", "folder", code=0)
def folder_called_like_one_more_image(folder: Path) -> None:
    (folder / "imagesTr" / "P09_0_0000.png").mkdir()


@bad("P00_0_0000.png", "link")
def link_to_nowhere(folder: Path) -> None:
    link(image(folder), "/nowhere/at/all.png")


@bad("P09_0_0000.png", "link", code=0)
def link_in_a_circle(folder: Path) -> None:
    link(folder / "imagesTr" / "P09_0_0000.png", "P09_0_0000.png")


@bad("P09_0_0000.png", "no file", code=0)
def pipe_called_like_an_image(folder: Path) -> None:
    os.mkfifo(folder / "imagesTr" / "P09_0_0000.png")


@bad("P00_0", "2 channels", "declares 1")
def one_channel_too_many(folder: Path) -> None:
    save(folder / "imagesTr" / "P00_0_0001.png", discs(99)[0])


@bad("P00_0", "1 channel", "declares 2")
def one_channel_too_few(folder: Path) -> None:
    declare(folder, channel_names={"0": "B-mode", "1": "Doppler"})
    for number in range(1, 6):
        case = f"P{number // 2:02d}_{number % 2}"
        save(folder / "imagesTr" / f"{case}_0001.png", discs(50 + number)[0])


@bad("P00_0", "0000, 0002")
def gap_between_channels(folder: Path) -> None:
    declare(folder, channel_names={"0": "B-mode", "1": "Doppler"})
    for number in range(6):
        case = f"P{number // 2:02d}_{number % 2}"
        save(folder / "imagesTr" / f"{case}_000{1 if number else 2}.png", discs(50 + number)[0])


@bad("P00_0_0001.png", "1x30x30", "48x40")
def channels_of_different_size(folder: Path) -> None:
    declare(folder, channel_names={"0": "B-mode", "1": "Doppler"})
    for number in range(6):
        case = f"P{number // 2:02d}_{number % 2}"
        save(folder / "imagesTr" / f"{case}_0001.png", discs(50 + number, (48, 40) if number else (30, 30))[0])


@bad("P00_0_0000.jpg", "file_ending")
def image_of_another_ending(folder: Path) -> None:
    image(folder).rename(folder / "imagesTr" / "P00_0_0000.jpg")


@bad("P00_0_0000.PNG", "file_ending")
def ending_in_capitals(folder: Path) -> None:
    image(folder).rename(folder / "imagesTr" / "P00_0_0000.PNG")


@bad("P09_0_0000.tif", "file_ending", code=0)
def image_beside_the_others_that_nothing_reads(folder: Path) -> None:
    save(folder / "imagesTr" / "P09_0_0000.tif", discs(9)[0])


@bad("P02_1", "p02_1", "differ only in case")
def names_that_differ_in_case(folder: Path) -> None:
    save(folder / "imagesTr" / "p02_1_0000.png", discs(77)[0])
    save(folder / "labelsTr" / "p02_1.png", discs(77)[1])
    declare(folder, group_regex="^([Pp][0-9]+)_", numTraining=7)


@bad("differ only in case")
def names_that_differ_in_accents(folder: Path) -> None:
    for number, name in enumerate(("P03_\u00e9", "P03_e\u0301")):
        save(folder / "imagesTr" / f"{name}_0000.png", discs(70 + number)[0])
        save(folder / "labelsTr" / f"{name}.png", discs(70 + number)[1])
    declare(folder, numTraining=8)


@bad("not valid UTF-8")
def name_that_is_no_text(folder: Path) -> None:
    os.rename(os.fsencode(image(folder)), os.fsencode(folder / "imagesTr") + b"/P00_\xff_0000.png")


@bad("P00_0", "P00_1", "same image", code=0)
def the_same_image_twice(folder: Path) -> None:
    for path, other in ((image(folder), image(folder, "P00_1")), (label(folder), label(folder, "P00_1"))):
        other.write_bytes(path.read_bytes())


@bad("P00_0", "P01_0", "same image", "different label maps", code=0)
def the_same_image_with_two_label_maps(folder: Path) -> None:
    image(folder, "P01_0").write_bytes(image(folder).read_bytes())


@bad("P00_0", "P01_0", "nearly", code=0)
def the_same_image_a_little_brighter(folder: Path) -> None:
    for path, other in ((image(folder), image(folder, "P01_0")), (label(folder), label(folder, "P01_0"))):
        other.write_bytes(path.read_bytes())
    edit(image(folder, "P01_0"), lambda values: np.minimum(values.astype(int) + 3, 255).astype(np.uint8))


@bad("imagesTs/P50_0", "same image", "P00_0")
def training_image_in_the_test_set(folder: Path) -> None:
    for part, source in (("imagesTs", image(folder)), ("labelsTs", label(folder))):
        (folder / part).mkdir()
        (folder / part / source.name.replace("P00", "P50")).write_bytes(source.read_bytes())


@bad("imagesTs/P50_0", "same image", "P00_0", code=0)
def training_image_in_a_test_set_without_labels(folder: Path) -> None:
    (folder / "imagesTs").mkdir()
    (folder / "imagesTs" / "P50_0_0000.png").write_bytes(image(folder).read_bytes())


@bad("imagesTs/P50_0", "nearly", "P00_0", code=0)
def training_image_saved_again_in_the_test_set(folder: Path) -> None:
    (folder / "imagesTs").mkdir()
    edited = np.minimum(pixels(image(folder)).astype(int) + 3, 255).astype(np.uint8)
    save(folder / "imagesTs" / "P50_0_0000.png", edited)


@bad("imagesTs", "P00")
def patient_in_training_and_test(folder: Path) -> None:
    save(folder / "imagesTs" / "P00_7_0000.png", discs(88)[0])
    save(folder / "labelsTs" / "P00_7.png", discs(88)[1])


@bad("imagesTs/P50_0", "ends too early", code=0)
def half_a_test_image(folder: Path) -> None:
    save(folder / "imagesTs" / "P50_0_0000.png", discs(88)[0])
    cut(folder / "imagesTs" / "P50_0_0000.png")


@bad("P02_1", "480 x 400", code=0)
def one_image_ten_times_as_large(folder: Path) -> None:
    for path, values in zip((image(folder, "P02_1"), label(folder, "P02_1")), discs(5, (480, 400)), strict=True):
        save(path, values)


@bad("imagesTr", "no image")
def no_image_at_all(folder: Path) -> None:
    for path in (folder / "imagesTr").iterdir():
        path.unlink()


@bad("imagesTr", "no such folder")
def no_folder_of_images(folder: Path) -> None:
    (folder / "imagesTr").rename(folder / "images")


@bad("imagesTr", "folder")
def file_in_the_place_of_the_images(folder: Path) -> None:
    (folder / "imagesTr").rename(folder / "images")
    (folder / "imagesTr").write_text("images lie elsewhere")


# volumes


@bad(HERE, "ends too early", base="nii")
def half_a_volume(folder: Path) -> None:
    content = gzip.decompress(image(folder).read_bytes())
    image(folder).write_bytes(gzip.compress(content[: len(content) // 2]))


@bad(HERE, "cannot be read", base="nii")
def volume_whose_packing_is_cut(folder: Path) -> None:
    cut(image(folder))


@bad(HERE, "ends too early", base="nii")
def half_a_volume_unpacked(folder: Path) -> None:
    _unpack(folder)
    cut(image(folder))


@bad(HERE, "NaN or infinite", base="nii")
def one_voxel_is_nan(folder: Path) -> None:
    values = volume(image(folder)).astype(np.float32)
    values[1, 2, 3] = np.nan
    save_volume(image(folder), values)


@bad(HERE, "NaN or infinite", base="nii")
def one_voxel_is_infinite(folder: Path) -> None:
    values = volume(image(folder)).astype(np.float32)
    values[1, 2, 3] = np.inf
    save_volume(image(folder), values)


@bad(HERE, "voxel size", base="nii")
def voxels_without_size(folder: Path) -> None:
    _header(image(folder), 80, struct.pack("<f", 0.0))


@bad(HERE, "voxel size", base="nii")
def voxels_of_negative_size(folder: Path) -> None:
    _header(image(folder), 80, struct.pack("<f", -0.5))


@bad(HERE, "voxel size", base="nii")
def voxels_of_no_number(folder: Path) -> None:
    _header(image(folder), 84, struct.pack("<f", float("nan")))


@bad(HERE, "orientation", base="nii")
def orientation_that_is_flat(folder: Path) -> None:
    _header(image(folder), 280, bytes(48))


@bad(HERE, "claims a size", base="nii")
def volume_that_claims_too_much(folder: Path) -> None:
    _header(image(folder), 42, struct.pack("<hhh", 32000, 32000, 32000))


@bad(HERE, "claims a size", base="nii")
def volume_of_no_size(folder: Path) -> None:
    _header(image(folder), 42, struct.pack("<hhh", 0, 24, 3))


@bad(HERE, "cannot be read", base="nii")
def volume_of_an_unknown_type(folder: Path) -> None:
    _header(image(folder), 70, struct.pack("<hh", 7777, 8))


@bad(HERE, "complex", base="nii")
def volume_of_complex_numbers(folder: Path) -> None:
    save_volume(image(folder), volume(image(folder)).astype(np.complex64))


@bad("P00_0", "2 channels", base="nii")
def volume_of_four_axes(folder: Path) -> None:
    values = volume(image(folder))
    save_volume(image(folder), np.stack([values, values // 2]))


@bad("P00_0", "0.01", "others", code=0, base="nii")
def one_volume_in_other_units(folder: Path) -> None:
    for path in (image(folder), label(folder)):
        save_volume(path, volume(path), spacing=0.01)


@bad("P00_0_0001.nii.gz", "2x24x20", "3x24x20", base="nii")
def channels_of_different_slices(folder: Path) -> None:
    declare(folder, channel_names={"0": "B-mode", "1": "Doppler"})
    for number in range(6):
        case = f"P{number // 2:02d}_{number % 2}"
        values = volume(image(folder, f"{case}_0000"))
        save_volume(folder / "imagesTr" / f"{case}_0001.nii.gz", 255 - values if number else values[:2])


@bad("P00_0_0000.mhd", "../../secret.raw", base="nii")
def header_that_points_outside(folder: Path) -> None:
    _only_headers(folder, ".mhd", _meta_image("../../secret.raw"))
    (folder.parent / "secret.raw").write_bytes(bytes(24 * 20 * 3))


@bad("P00_0_0000.mhd", "/etc/passwd", base="nii")
def header_that_points_at_the_system(folder: Path) -> None:
    _only_headers(folder, ".mhd", _meta_image("/etc/passwd"))


@bad("P00_0_0000.mhd", "not beside it", base="nii")
def header_without_its_data(folder: Path) -> None:
    _only_headers(folder, ".mhd", _meta_image("lost.raw"))


@bad("P00_0_0000.nrrd", "/etc/passwd", base="nii")
def nrrd_that_points_at_the_system(folder: Path) -> None:
    head = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 20 24 3\nencoding: raw\ndata file: /etc/passwd\n\n"
    _only_headers(folder, ".nrrd", head)


@bad("cannot be used", "20", base="unlabelled")
def most_unlabelled_images_broken(folder: Path) -> None:
    for number in range(20):
        (folder / "imagesTr" / f"x{number}.png").write_bytes(b"no image")


@bad("P00_0", "empty (0 bytes)", code=5, base="unlabelled")
def one_unlabelled_image_empty(folder: Path) -> None:
    image(folder).write_bytes(b"")


def _unpack(folder: Path) -> None:
    for path in (*(folder / "imagesTr").iterdir(), *(folder / "labelsTr").iterdir()):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    declare(folder, file_ending=".nii")


# what decoders do not mind


@bad("imagesTr/P00_0_0000.png", "ends too early")
def image_without_its_end(folder: Path) -> None:
    path = image(folder)
    path.write_bytes(path.read_bytes()[:-12])


@bad("imagesTr/P00_0_0000.png", "checksum")
def image_whose_second_half_was_never_written(folder: Path) -> None:
    content = image(folder).read_bytes()
    image(folder).write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))


@bad("imagesTr/P00_0_0000.png", "behind its end", code=0)
def two_images_in_one_file(folder: Path) -> None:
    image(folder).write_bytes(2 * image(folder).read_bytes())


@bad("imagesTr/P00_0_0000.png", "no PNG")
def pointer_of_git(folder: Path) -> None:
    lines = ("version https://git-lfs.github.com/spec/v1", f"oid sha256:{64 * 'a'}", "size 12345", "")
    image(folder).write_text("\n".join(lines))


@bad("P00_0_0000.nii.gz", "longer than its header says", base="nii")
def volume_with_more_than_it_says(folder: Path) -> None:
    path = image(folder)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(range(1, 200))))


@bad("P00_0_0000.nii.gz", "begin at byte 1e+12", base="nii")
def volume_whose_pixels_begin_far_away(folder: Path) -> None:
    _header(image(folder), 108, struct.pack("<f", 1e12))


@bad("P00_0_0000.nii.gz", "begin at byte nan", base="nii")
def volume_whose_pixels_begin_nowhere(folder: Path) -> None:
    _header(image(folder), 108, struct.pack("<f", float("nan")))


@bad("P00_0_0000.nii.gz", "'pixdim'", "by its matrix", code=0, base="nii")
def volume_of_two_sizes(folder: Path) -> None:
    for path in (image(folder), label(folder)):
        _header(path, 254, struct.pack("<h", 1))  # the second matrix counts
        _header(path, 280, struct.pack("<12f", -3, 0, 0, 0, 0, -3, 0, 0, 0, 0, 3, 0))


def _header(path: Path, offset: int, value: bytes) -> None:
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[offset : offset + len(value)] = value
    path.write_bytes(gzip.compress(bytes(content)))


def _meta_image(data: str) -> str:
    lines = (
        "ObjectType = Image",
        "NDims = 3",
        "DimSize = 20 24 3",
        "ElementType = MET_UCHAR",
        f"ElementDataFile = {data}",
    )
    return "\n".join(lines) + "\n"


def _only_headers(folder: Path, ending: str, head: str) -> None:
    """Write one header for all images; the label maps stay NIfTI."""
    for path in list((folder / "imagesTr").iterdir()):
        path.with_name(path.name.replace(".nii.gz", ending)).write_text(head)
        path.unlink()
    declare(folder, file_ending=ending)


def png_bytes(values: np.ndarray) -> bytes:
    """Return an image as the bytes of a PNG."""
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, format="PNG")
    return stream.getvalue()
