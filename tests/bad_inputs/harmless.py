"""Datasets that look odd and are sound: nothing may be refused."""

import json
import os
from pathlib import Path

import numpy as np
from PIL import Image
from sound import LABELS, Bad, collected, declare, edit, image, label, pixels, save

HARMLESS: list[Bad] = []
bad = collected(HARMLESS)


def rename(folder: Path, name: str) -> None:
    """Give another name to the first case."""
    image(folder).rename(folder / "imagesTr" / f"{name}_0000.png")
    label(folder).rename(folder / "labelsTr" / f"{name}.png")
    declare(folder, group_regex=None)


@bad(code=0)
def nothing_wrong(folder: Path) -> None:
    pass


@bad(code=0, base="rgb")
def nothing_wrong_in_colour(folder: Path) -> None:
    pass


@bad(code=0, base="nii")
def nothing_wrong_in_volumes(folder: Path) -> None:
    pass


@bad(code=0, base="classes")
def nothing_wrong_in_classes(folder: Path) -> None:
    pass


@bad(code=0, base="unlabelled")
def nothing_wrong_without_labels(folder: Path) -> None:
    pass


@bad(code=0)
def junk_of_the_operating_system(folder: Path) -> None:
    for part in ("imagesTr", "labelsTr", "."):
        for name in (".DS_Store", "._P00_0_0000.png", "Thumbs.db", "desktop.ini", ".hidden.png"):
            (folder / part / name).write_bytes(b"junk")


@bad(code=0)
def files_that_are_no_images(folder: Path) -> None:
    for name in ("README.txt", "P00_0_0000.json", "images.zip", "notes.docx"):
        (folder / "imagesTr" / name).write_bytes(b"no image")
    (folder / "labelsTr" / "labels.itksnap").write_text("labels")
    (folder / "old").mkdir()


@bad(code=0)
def names_with_spaces_and_dashes(folder: Path) -> None:
    rename(folder, "-r f (1) & x")


@bad(code=0)
def names_in_brackets(folder: Path) -> None:
    rename(folder, "[bold]x[red]")


@bad(code=0)
def name_with_a_new_line(folder: Path) -> None:
    rename(folder, "a\nb")


@bad(code=0)
def name_that_would_clear_the_screen(folder: Path) -> None:
    rename(folder, "a\x1b[2Jb")


@bad(code=0)
def name_of_255_bytes(folder: Path) -> None:
    rename(folder, "x" * 246)


@bad(code=0)
def name_in_chinese(folder: Path) -> None:
    rename(folder, "\u8d85\u58f0\u6ce2" * 5)


@bad(code=0)
def declaration_with_windows_line_ends(folder: Path) -> None:
    text = (folder / "dataset.json").read_text().replace("\n", "\r\n")
    (folder / "dataset.json").write_bytes(text.encode())


@bad(code=0)
def declaration_with_byte_order_mark(folder: Path) -> None:
    (folder / "dataset.json").write_bytes(b"\xef\xbb\xbf" + (folder / "dataset.json").read_bytes())


@bad(code=0)
def declaration_in_utf_16(folder: Path) -> None:
    text = (folder / "dataset.json").read_text().replace("head", "t\u00eate")
    (folder / "dataset.json").write_bytes(text.encode("utf-16"))


@bad(code=0)
def declaration_with_other_keys(folder: Path) -> None:
    declare(folder, name="x", licence="y", description="z", release="1.0", reference="", converted_by="w")


@bad(code=0)
def patients_with_byte_order_mark_and_windows_line_ends(folder: Path) -> None:
    rows = "".join(f"P{number // 2:02d}_{number % 2},a{number // 2}\r\n" for number in range(6))
    (folder / "patients.csv").write_bytes(b"\xef\xbb\xbf" + f"case,patient\r\n{rows}\r\n".encode())


@bad(code=0)
def label_maps_of_one_bit(folder: Path) -> None:
    for path in (folder / "labelsTr").iterdir():
        Image.fromarray(pixels(path) > 0).save(path)
    declare(folder, labels={"background": 0, "head": 1})


@bad(code=0)
def label_maps_with_a_palette(folder: Path) -> None:
    for path in (folder / "labelsTr").iterdir():
        values = Image.fromarray(pixels(path))
        values.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        values.save(path)


@bad(code=0)
def label_maps_with_alpha(folder: Path) -> None:
    for path in (folder / "labelsTr").iterdir():
        edit(path, lambda values: np.stack([values, values, values, np.full_like(values, 255)], -1))


@bad(code=0)
def label_maps_of_16_bits(folder: Path) -> None:
    for path in (folder / "labelsTr").iterdir():
        edit(path, lambda values: values.astype(np.uint16))


@bad(code=0)
def label_map_of_whole_floats(folder: Path) -> None:
    Image.fromarray(pixels(label(folder)).astype(np.float32)).save(label(folder), format="TIFF")


@bad(code=0)
def links_to_the_real_files(folder: Path) -> None:
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    for path in list((folder / "imagesTr").iterdir()):
        path.rename(elsewhere / path.name)
        os.symlink(elsewhere / path.name, path)


@bad(code=0)
def regions_and_ignore(folder: Path) -> None:
    labels = {"background": 0, "whole": [1, 2], "organ": 2, "ignore": 3}
    declare(folder, labels=labels, regions_class_order=[1, 2])
    edit(label(folder), lambda values: np.where(values == 0, 3, values).astype(np.uint8))


@bad(code=0)
def folds_of_ones_own(folder: Path) -> None:
    cases = [f"P{number // 2:02d}_{number % 2}" for number in range(6)]
    folds = [{"train": cases[2:], "val": cases[:2]}, {"train": cases[:4], "val": cases[4:]}]
    (folder / "splits_final.json").write_text(json.dumps(folds))


@bad(code=0)
def cases_listed_in_the_declaration(folder: Path) -> None:
    cases = [f"P{number // 2:02d}_{number % 2}" for number in range(6)]
    entries = {case: {"images": [f"imagesTr/{case}_0000.png"], "label": f"labelsTr/{case}.png"} for case in cases}
    declare(folder, dataset=entries, labels=LABELS)


@bad(code=0)
def test_set_of_its_own(folder: Path) -> None:
    from sound import discs

    save(folder / "imagesTs" / "P50_0_0000.png", discs(60)[0])
    save(folder / "labelsTs" / "P50_0.png", discs(60)[1])


@bad(code=0, base="unlabelled")
def folders_that_are_links_in_a_circle(folder: Path) -> None:
    os.symlink(folder, folder / "imagesTr" / "again")
