"""What lies before someone who begins to read a page: made images, and what earlier commands have made of them."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tiny_run
from layout_sources import make_busi, make_fass, make_hc18, make_masks, write_image
from test_readers_dicom import write as write_dicom

from fmseg.imaging.phantoms import Group, write_phantoms

Giver = Callable[[Path], None]
SIZE = (40, 52)


def disc(*seed: int, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Return an image and its label map, both (Y, X) uint8."""
    return tiny_run.disc(np.random.default_rng(seed), size)


def images(*places: str, count: int = 2, ending: str = ".png") -> Giver:
    """Folders of images, other ones in each."""

    def give(folder: Path) -> None:
        for place in places:
            for index in range(count):
                image, _ = disc(*place.encode(), index)
                path = folder / place / f"scan_{index + 1}{ending}"
                if ending == ".dcm":
                    path.parent.mkdir(parents=True, exist_ok=True)
                    uid = f"1.2.{len(place)}.{index + 1}"
                    of_its_own = {
                        "SOPInstanceUID": uid,
                        "StudyInstanceUID": f"{uid}.1",
                        "SeriesInstanceUID": f"{uid}.2",
                    }
                    write_dicom(path, image[None], PatientID=f"P{index}", **of_its_own)
                else:
                    write_image(path, image)

    return give


def labels_of(place: str, labels: str) -> Giver:
    """Label maps of a folder of images."""

    def give(folder: Path) -> None:
        for index in range(len(list((folder / place).iterdir()))):
            write_image(folder / labels / f"scan_{index + 1}.png", disc(*place.encode(), index)[1])

    return give


def table(name: str, *rows: tuple[str, ...]) -> Giver:
    """A table of comma-separated values."""

    def give(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with open(folder / name, "w", newline="") as file:
            csv.writer(file).writerows(rows)

    return give


def dataset(
    title: str,
    *,
    patients: int = 2,
    images_each: int = 4,
    where: str = "fmseg_raw",
    ending: str = ".png",
    classes: tuple[str, ...] = (),
    size: tuple[int, int] = SIZE,
) -> Giver:
    """A raw dataset of discs. Its cases are P01_a, P01_b ...: patient, image. classes: one for each case, in turn."""

    def give(folder: Path) -> None:
        place = folder / where / title
        names = [f"P{patient + 1:02d}_{chr(97 + index)}" for patient in range(patients) for index in range(images_each)]
        for number, name in enumerate(names):
            image, label = disc(*title.encode(), number, size=size)
            path = place / "imagesTr" / f"{name}_0000{ending}"
            if ending != ".dcm":
                write_image(path, image)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_dicom(path, image[None], SOPInstanceUID=f"1.2.3.{number}")
            if not classes:
                write_image(place / "labelsTr" / f"{name}.png", label)
        declared = {
            "channel_names": {"0": "ultrasound"},
            "labels": {} if classes else {"background": 0, "head": 1},
            "numTraining": len(names),
            "file_ending": ending,
            "group_regex": "^(P[0-9]+)_",
        } | ({"task": "classification"} if classes else {})
        (place / "dataset.json").write_text(json.dumps(declared))
        if classes:
            rows = [(name, classes[number % len(classes)]) for number, name in enumerate(names)]
            table(f"{where}/{title}/labelsTr.csv", ("case", "label"), *rows)(folder)

    return give


def planes(title: str, patients: int = 4) -> Giver:
    """Images for the page's own table and declaration: P001_1, P001_2 ..., of two classes and of two a patient."""

    def give(folder: Path) -> None:
        names = [f"P{patient + 1:03d}_{index + 1}" for patient in range(patients) for index in range(2)]
        for number, name in enumerate(names):
            write_image(folder / "fmseg_raw" / title / "imagesTr" / f"{name}_0000.png", disc(number, 5)[0])
        rows = [(name, ("femur", "brain")[number % 2]) for number, name in enumerate(names)]
        table(f"fmseg_raw/{title}/labelsTr.csv", ("case", "label"), *rows)(folder)
        table(f"fmseg_raw/{title}/patients.csv", ("case", "patient"), *((name, name[:4]) for name in names))(folder)

    return give


def phantoms(folder: Path) -> None:
    """The demo's datasets, smaller."""
    groups = {"training": Group("P", 4, 2), "test": Group("T", 2, 1), "corpus": Group("U", 4, 2)}
    write_phantoms(folder / "fmseg_raw", **groups)


def copied(source: str, target: str) -> Giver:
    """A file again, elsewhere; or a folder."""

    def give(folder: Path) -> None:
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (folder / source).is_dir() else shutil.copy
        copy(folder / source, folder / target)

    return give


def without(*names: str) -> Giver:
    """A file or folder less."""

    def give(folder: Path) -> None:
        for name in names:
            shutil.rmtree(folder / name)

    return give


def typed(*commands: str) -> Giver:
    """What commands have made, shortened as those of pages are."""

    def give(folder: Path) -> None:
        from reader import shortened, type_line

        for command in commands:
            type_line(shortened(command), folder)

    return give


def small_dinov2(name: str) -> Giver:
    """Random weights as DINOv2 publishes them, but of a small network."""

    def give(folder: Path) -> None:
        import torch
        from test_import_weights import state_of

        torch.save(state_of(patch=14, width=192), folder / name)  # a width whose number of heads is known

    return give


def write_data(data: Path) -> None:
    """Write the disk that the pages call /data."""
    images("archive", count=60)(data)
    images("pacs_export", ending=".dcm")(data)
    make_hc18(data / "HC18")
    make_busi(data / "BUSI")
    make_fass(data / "FASS")
    make_masks(data / "thyroid")
    write_heads(data / "elsewhere")
    write_levels(data / "liver")
    dataset("Dataset501_Heads", where="nnUNet_raw")(data)
    rows = [(f"archive/scan_{index}.png", str(index)) for index in range(1, 5)]
    table("list.csv", ("image", "patient"), *rows)(data)


def write_heads(folder: Path) -> None:
    """Write images with masks of one class, four of each of two patients."""
    for index in range(8):
        image, label = disc(9, index)
        write_image(folder / "images" / f"patient{index // 4}_{index}.png", image)
        write_image(folder / "masks" / f"patient{index // 4}_{index}.png", label * 255)


def write_levels(folder: Path) -> None:
    """Write images whose masks have the two grey values that docs/how-to/convert.md declares."""
    for index in range(4):
        image, label = disc(7, index)
        write_image(folder / "images" / f"P{index}_a.png", image)
        mask = label * 200
        mask[:6, :6] = 50
        write_image(folder / "masks" / f"P{index}_a.png", mask)


ABDOMEN = typed("fmseg export --foundation d901 -o d901.fmseg", "fmseg import d901.fmseg --as abdomen")
BUNDLE = typed("fmseg export 501 -o heads.fmseg")

#: pages that begin with nothing but these; every other page begins where README ends
FROM_NOTHING: dict[str, tuple[Giver, ...]] = {
    "README.md": (dataset("Dataset501_Heads"), images("new_images")),
    "docs/tutorial.md": (
        phantoms,
        images("heads/new_images"),
        labels_of("heads/new_images", "heads/labels"),
    ),
    "docs/how-to/add-a-reader.md": (dataset("Dataset501_Breasts", ending=".pgm"),),
    "docs/how-to/benchmark.md": (
        dataset("Dataset501_Heads", patients=30, images_each=1),
        dataset("Dataset502_Planes", patients=6, images_each=2, classes=("femur", "brain")),
        dataset("Dataset503_Archive"),
        dataset("Dataset504_Elsewhere", patients=2, images_each=2, classes=("femur", "brain")),
        typed("fmseg plan_and_preprocess -d 501 502 503", "fmseg pretrain -d 503"),
    ),
    "docs/how-to/check-a-dataset.md": (
        dataset("Dataset501_X"),
        copied("fmseg_raw/Dataset501_X/imagesTr/P01_a_0000.png", "fmseg_raw/Dataset501_X/imagesTr/P01_z_0000.png"),
        copied("fmseg_raw/Dataset501_X/labelsTr/P01_a.png", "fmseg_raw/Dataset501_X/labelsTr/P01_z.png"),
    ),
    "docs/how-to/classify.md": (
        planes("Dataset502_Planes"),
        images("new_images"),
        table("labels.csv", ("case", "label"), ("scan_1", "femur"), ("scan_2", "brain")),
    ),
    "docs/how-to/compare-networks.md": (
        dataset("Dataset501_Heads", images_each=1, size=(224, 224)),
        typed("fmseg plan_and_preprocess -d 501"),
    ),
    "docs/how-to/convert.md": (),
    "docs/how-to/nnunet-dataset.md": (),
    "docs/how-to/unlabelled-images.md": (
        dataset("Dataset501_Heads"),
        dataset("Dataset902_NewSite"),
        typed("fmseg plan_and_preprocess -d 501 902"),
    ),
    "docs/how-to/what-to-label.md": (
        dataset("Dataset501_Heads", patients=4, images_each=2),
        dataset("Dataset502_Planes", patients=4, images_each=2, classes=("femur", "brain")),
        typed("fmseg plan_and_preprocess -d 501 502", "fmseg pretrain -d 501 502"),
        images("images"),
    ),
    "fmseg_raw/README.md": (dataset("Dataset501_Heads", patients=4, images_each=5),),
}
#: what else there is where README has ended
ALSO: dict[str, tuple[Giver, ...]] = {
    "docs/explanation/planning.md": (copied("fmseg_preprocessed/Dataset501_Heads/plans.json", "other/plans.json"),),
    "docs/how-to/add-a-recipe.md": (without("fmseg_results/Dataset501_Heads"),),
    "docs/how-to/cluster.md": (
        dataset("Dataset501_Heads", where="data/fmseg/fmseg_raw"),
        typed("fmseg --root data/fmseg plan_and_preprocess -d 501"),
    ),
    "docs/how-to/dicom.md": (
        without("fmseg_raw/Dataset501_Heads", "new_images", "predictions"),
        dataset("Dataset501_Heads", ending=".dcm"),
        images("new_images", ending=".dcm"),
    ),
    "docs/how-to/external-cohort.md": (typed("fmseg export 501 -o other.fmseg", "fmseg import other.fmseg --as 502"),),
    "docs/how-to/few-labels.md": (
        without("predictions"),
        images("unlabelled_images", count=24),
        small_dinov2("dinov2_vits14_pretrain.pth"),
    ),
    "docs/how-to/python.md": (
        ABDOMEN,
        BUNDLE,
        without("fmseg_results/Dataset501_Heads", "predictions"),
        images("archive", count=4),
    ),
    "docs/how-to/share-models.md": (ABDOMEN, without("predictions")),
    "docs/how-to/ultrasound.md": (dataset("Dataset503_Planes", patients=2, images_each=2),),
    "docs/how-to/use-other-weights.md": (
        typed("fmseg export --foundation d901 -o my_model.fmseg", "fmseg import my_model.fmseg --as my_model"),
        small_dinov2("dinov2_vits14_pretrain.pth"),
    ),
    "docs/how-to/use-predictions.md": (
        BUNDLE,
        without("predictions"),
        images("in", ending=".dcm"),
        copied("new_images/scan_1.png", "scan.png"),
    ),
}
