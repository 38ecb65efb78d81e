"""Folders of new images with something wrong in them: what is named, and what is predicted all the same."""

import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from sound import cut, discs, edit, flip_bit, link, pixels, save, save_volume

GOOD = ("a.png", "b.png", "c.png")


@dataclass(frozen=True, slots=True)
class BadFolder:
    """A folder of images, and what ``predict`` must make of it."""

    name: str
    #: changes the folder that holds ``in`` with GOOD in it
    spoil: Callable[[Path], object]
    words: tuple[str, ...]
    #: what must lie in ``out`` in the end
    done: tuple[str, ...]
    code: int


FOLDERS: list[BadFolder] = []


def bad(*words: str, done: tuple[str, ...] = GOOD, code: int = 5) -> Callable:
    def add(spoil: Callable[[Path], object]) -> Callable[[Path], object]:
        FOLDERS.append(BadFolder(spoil.__name__.replace("_", " "), spoil, words, done, code))
        return spoil

    return add


def write_good(folder: Path) -> None:
    """Write three sound images."""
    for number, name in enumerate(GOOD):
        save(folder / "in" / name, discs(500 + number)[0])


@bad("x.png", "empty (0 bytes)")
def an_empty_file(root: Path) -> None:
    (root / "in" / "x.png").write_bytes(b"")


@bad("a.png", "ends too early", done=GOOD[1:])
def half_an_image(root: Path) -> None:
    cut(root / "in" / "a.png")


@bad("a.png", "a checksum in it is wrong", done=GOOD[1:])
def a_flipped_bit(root: Path) -> None:
    flip_bit(root / "in" / "a.png")


@bad("x.jpg", "no PNG, JPEG, BMP or TIFF")
def a_web_page(root: Path) -> None:
    (root / "in" / "x.jpg").write_text("<html>404</html>")


@bad("x.png", "folder")
def a_folder_called_like_an_image(root: Path) -> None:
    (root / "in" / "x.png").mkdir()


@bad("x.png", "link")
def a_link_to_nowhere(root: Path) -> None:
    link(root / "in" / "x.png", "nowhere.png")


@bad("x.png", "link")
def a_link_to_itself(root: Path) -> None:
    link(root / "in" / "x.png", "x.png")


@bad("x.png", "no file")
def a_pipe(root: Path) -> None:
    os.mkfifo(root / "in" / "x.png")


@bad("a.png", "pixels", done=GOOD[1:])
def a_header_that_claims_too_much(root: Path) -> None:
    content = bytearray((root / "in" / "a.png").read_bytes())
    content[16:24] = struct.pack(">II", 50_000, 50_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (root / "in" / "a.png").write_bytes(content)


@bad(code=0, done=(*GOOD, "x.tif"))
def several_pages(root: Path) -> None:
    pages = [Image.fromarray(discs(number)[0]) for number in range(2)]
    pages[0].save(root / "in" / "x.tif", save_all=True, append_images=pages[1:])


@bad("a.jpg", "a.png", "would be written to", done=GOOD[1:])
def two_images_for_one_output(root: Path) -> None:
    save(root / "in" / "a.jpg", discs(9)[0])


@bad("A.png", "a.png", "would be written to", done=GOOD[1:])
def names_that_differ_in_case(root: Path) -> None:
    save(root / "in" / "A.png", discs(9)[0])


@bad("UTF-8")
def a_name_that_is_no_text(root: Path) -> None:
    save(root / "x.png", discs(9)[0])
    os.rename(os.fsencode(root / "x.png"), os.fsencode(root / "in") + b"/\xff.png")


@bad("x.tif", "float32")
def values_that_are_no_numbers(root: Path) -> None:
    values = discs(9)[0].astype(np.float32)
    values[3, 4] = np.nan
    Image.fromarray(values).save(root / "in" / "x.tif")


@bad("x_0000.png", "channels")
def two_channels_for_a_network_of_one(root: Path) -> None:
    for channel in range(2):
        save(root / "in" / f"x_000{channel}.png", discs(channel)[0])


@bad("x.nii.gz", "cannot be read")
def half_a_volume(root: Path) -> None:
    save_volume(root / "in" / "x.nii.gz", np.stack([discs(z)[0] for z in range(3)]))
    cut(root / "in" / "x.nii.gz")


@bad("x.nii.gz", "voxel size")
def a_volume_without_size(root: Path) -> None:
    save_volume(root / "in" / "x.nii.gz", np.stack([discs(z)[0] for z in range(3)]), pixdim=[1, 0, 0, 0, 0, 0, 0, 0])


@bad("a.png", "b.png", "c.png", done=())
def nothing_that_can_be_read(root: Path) -> None:
    for path in (root / "in").iterdir():
        path.write_bytes(b"no image")


@bad("no image", done=(), code=2)
def nothing_at_all(root: Path) -> None:
    for path in (root / "in").iterdir():
        path.unlink()


@bad("no such folder", done=(), code=2)
def no_folder(root: Path) -> None:
    (root / "in").rename(root / "elsewhere")


@bad("no image", done=(), code=2)
def a_folder_of_letters(root: Path) -> None:
    for path in (root / "in").iterdir():
        path.rename(path.with_suffix(".docx"))


@bad("a.png is there already", done=("a.png",), code=2)
def a_file_of_somebody_else_in_the_output(root: Path) -> None:
    save(root / "out" / "a.png", discs(9)[1])


@bad("out", "Choose another folder", done=(), code=4)
def a_file_for_the_output(root: Path) -> None:
    (root / "out").write_text("taken")


@bad("a.png is there already", done=("a.png",), code=2)
def an_output_that_is_a_link(root: Path) -> None:
    (root / "precious.png").write_text("precious")
    (root / "out").mkdir()
    link(root / "out" / "a.png", root / "precious.png")


@bad("a.png is there already", done=("a.png",), code=2)
def an_output_that_is_a_link_to_nowhere(root: Path) -> None:
    (root / "out").mkdir()
    link(root / "out" / "a.png", root / "precious.png")


@bad(code=0)
def a_table_that_is_a_link(root: Path) -> None:
    (root / "precious.csv").write_text("precious")
    (root / "out").mkdir()
    link(root / "out" / "report.csv", root / "precious.csv")


@bad(code=0)
def junk(root: Path) -> None:
    for name in (".DS_Store", "._a.png", "Thumbs.db", "notes.txt"):
        (root / "in" / name).write_bytes(b"junk")


@bad(code=0, done=(*GOOD, "x" * 250 + ".png"))
def a_name_of_254_bytes(root: Path) -> None:
    save(root / "in" / ("x" * 250 + ".png"), discs(9)[0])


@bad(code=0, done=(*GOOD, "x\x1b[2J\ny.png", "[bold]x.png"))
def names_that_would_clear_the_screen(root: Path) -> None:
    save(root / "in" / "x\x1b[2J\ny.png", discs(9)[0])
    save(root / "in" / "[bold]x.png", discs(9)[0])


@bad(code=0, done=(*GOOD, "x.png"))
def an_image_of_one_pixel(root: Path) -> None:
    save(root / "in" / "x.png", discs(9)[0][:1, :1])


@bad(code=0, done=GOOD)
def a_black_image(root: Path) -> None:
    edit(root / "in" / "a.png", np.zeros_like)
    assert not pixels(root / "in" / "a.png").any()
