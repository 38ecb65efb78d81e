"""The typed commands on real files, from ``convert`` to ``predict``: slow, and skipped where the files are not.

Real images are not part of the project. They are looked for in ``../shared/data``, or where FMSEG_TEST_DATA says.
"""

import csv
import json
import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from fmseg.cli import main
from fmseg.imaging.readers import read_case
from fmseg.records.cases import CaseFiles

DATA = Path(os.environ.get("FMSEG_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
#: of pydicom: a cine of 30 frames, JPEG, JPEG 2000, JPEG-LS, RLE, palettes, YBR
DICOM = (
    "examples_ybr_color.dcm",
    "color3d_jpeg_baseline.dcm",
    "examples_palette.dcm",
    "examples_jpeg2k.dcm",
    "SC_rgb_rle.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "SC_rgb_rle_2frame.dcm",
    "JPEG2000.dcm",
    "MR_small_RLE.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "JPGExtended.dcm",
)
SHORT = ("--num-workers", "0", *(word for key in ("iterations=2", "batch_size=2") for word in ("--set", key)))
NARROW = ("architecture.width=16", "architecture.depth=2", "architecture.num_heads=2", "num_prototypes=32")
PRETRAIN = (*SHORT, *(word for key in (*NARROW, "head_hidden=16", "head_bottleneck=8") for word in ("--set", key)))

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def typed(root: Path, *arguments: object, code: int = 0) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--root", str(root), *(str(argument) for argument in arguments)])
    assert int(left.value.code or 0) == code, arguments


def findings(root: Path, dataset: str) -> list[str]:
    """Return the severity and problem of all findings that are more than a note."""
    found = json.loads((root / "fmseg_preprocessed" / dataset / "doctor.json").read_text())
    return [f"{each['severity']}: {each['where']}: {each['problem']}" for each in found if each["severity"] != "note"]


def need(*parts: str) -> Path:
    place = DATA.joinpath(*parts)
    if not place.exists():
        pytest.skip(f"{place} is not there")
    return place


def dicom_files(folder: Path) -> list[Path]:
    """Copy pydicom's files, and those of the data, where they are."""
    folder.mkdir()
    names = [name for name in DICOM if get_testdata_file(name, download=False)]
    assert len(names) >= 8
    found = [shutil.copy(str(get_testdata_file(name, download=False)), folder / name) for name in names]
    for path in sorted((DATA / "dicom_us").glob("*.dcm")):
        found.append(shutil.copy(path, folder / f"us_{path.name}"))
    return [Path(path) for path in found]


@pytest.fixture(scope="module")
def heads(tmp_path_factory) -> Path:
    """Bring some images of HC18, whose masks are outlines and whose pixel sizes are in a table, and train on them."""
    source, root = tmp_path_factory.mktemp("hc18") / "training_set", tmp_path_factory.mktemp("work")
    place = need("hc18", "training_set")
    images = [path for path in sorted(place.glob("*_HC.png")) if path.with_name(f"{path.stem}_Annotation.png").exists()]
    source.mkdir()
    for path in images[::40][:12]:
        for each in (path, path.with_name(f"{path.stem}_Annotation.png")):
            shutil.copy(each, source / each.name)
    for table in place.parent.glob("*.csv"):
        shutil.copy(table, source.parent / table.name)
    typed(root, "convert", "hc18", source.parent, "-d", 501)
    typed(root, "doctor", "-d", 501, "-np", 0)
    typed(root, "plan_and_preprocess", "-d", 501, "-np", 0)
    typed(root, "pretrain", "-d", 501, *PRETRAIN)
    typed(root, "train", 501, 0, "-r", "linear", *SHORT)
    return root


def test_hc18_from_outlines_to_label_maps(heads, tmp_path):
    folder = heads / "fmseg_raw" / "Dataset501_HC18"
    assert not [each for each in findings(heads, "Dataset501_HC18") if each.startswith("error") or "lines" in each]
    for path in (folder / "labelsTr").iterdir():
        filled = read_case(CaseFiles("a", (path,), None)).voxels
        assert 0.05 < (filled > 0).mean() < 0.7, f"{path.name} is an area, no line"
    fingerprint = json.loads(
        (heads / "fmseg_preprocessed" / "Dataset501_HC18" / "cases.jsonl").read_text().split("\n")[0]
    )
    assert fingerprint["patient"] in fingerprint["case"]
    typed(heads, "predict", "-i", folder / "imagesTr", "-o", tmp_path / "out")
    for path in (folder / "imagesTr").iterdir():
        assert Image.open(tmp_path / "out" / path.name.replace("_0000", "")).size == Image.open(path).size


@pytest.fixture(scope="module")
def colours(tmp_path_factory) -> Path:
    """Train on made images of three colours, as the screens of scanners have them."""
    source, root = tmp_path_factory.mktemp("screens"), tmp_path_factory.mktemp("work")
    for number in range(6):
        generator = np.random.default_rng(number)
        mask = np.zeros((96, 128), np.uint8)
        mask[20 : 50 + 4 * number, 30:80] = 255
        image = np.clip(generator.normal(60, 20, (96, 128, 3)) + mask[..., None] * (0.5, 0.3, 0.1), 0, 255)
        for kind, pixels in (("images", image.astype(np.uint8)), ("masks", mask)):
            path = source / kind / f"P{number:02d}_screen.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(path)
    typed(root, "convert", "masks", source, "-d", 504)
    typed(root, "plan_and_preprocess", "-d", 504, "-np", 0)
    typed(root, "pretrain", "-d", 504, *PRETRAIN)
    typed(root, "train", 504, 0, "-r", "linear", *SHORT)
    return root


def test_dicom_images_and_clips_from_convert_to_predict(colours, tmp_path):
    """A clip comes back as one file, on its own grid; what the network was not made for is left out, and named."""
    paths = dicom_files(tmp_path / "in")
    voxels = {path.stem: read_case(CaseFiles("a", (path,), None)).voxels for path in paths}
    assert max(each.shape[1] for each in voxels.values()) >= 30
    typed(tmp_path, "convert", "images", tmp_path / "in", "-d", 601)
    typed(tmp_path, "doctor", "-d", 601, "-np", 0)
    # what has 16 bits among colours of 8
    wide = {name for name, each in voxels.items() if each.dtype != np.uint8}
    typed(tmp_path, "plan_and_preprocess", "-d", 601, "-np", 0, code=5)
    prepared = next((tmp_path / "fmseg_preprocessed").glob("Dataset601_*"))
    left_out = (prepared / "skipped.jsonl").read_text().splitlines()
    assert 0 < len(left_out) == len(wide) and all("bits" in line or "int16" in line for line in left_out)
    typed(colours, "predict", "-i", tmp_path / "in", "-o", tmp_path / "out", code=5)
    with open(tmp_path / "out" / "report.csv") as file:
        notes = {row["case"]: row["note"] for row in csv.DictReader(file)}
    assert {name for name, note in notes.items() if "skipped" in note} == wide
    for name in voxels.keys() - wide:
        labels = nibabel.load(tmp_path / "out" / f"{name}.nii.gz")
        shape = labels.shape if labels.ndim == 3 else (*labels.shape, 1)
        assert shape[::-1] == voxels[name].shape[1:], name


def test_planes_from_names_to_classes(tmp_path):
    place, source = need("fetal_planes"), tmp_path / "planes"
    source.mkdir()
    for plane in ("Plane2", "Plane3", "Plane5", "Plane6"):
        for path in sorted(place.rglob(f"*{plane}*"))[::15][:6]:
            shutil.copy(path, source / path.name)
    typed(tmp_path, "convert", "fetal_planes", source, "-d", 502)
    typed(tmp_path, "doctor", "-d", 502, "-np", 0)
    name = next((tmp_path / "fmseg_raw").glob("Dataset502_*")).name
    assert not [each for each in findings(tmp_path, name) if each.startswith("error")]
    typed(tmp_path, "plan_and_preprocess", "-d", 502, "-np", 0)
    typed(tmp_path, "pretrain", "-d", 502, *PRETRAIN)
    typed(tmp_path, "train", 502, 0, "-r", "linear_probe", *SHORT)
    typed(tmp_path, "predict", "-i", source, "-o", tmp_path / "out")
    with open(tmp_path / "out" / "predictions.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24 and all(row["predicted"] for row in rows)


def test_clips_with_masks_are_learned_frame_by_frame_and_come_back_whole(tmp_path):
    """Frames of a clip look alike, and so do clips of a patient: that is no duplicate."""
    source = tmp_path / "source"
    for number in range(6):
        frames, masks = [], []
        for shift in range(4):
            label = np.zeros((96, 128), np.uint8)
            label[30:60, 20 + 10 * (number // 2) : 50 + 15 * (number // 2)] = 1
            noise = np.random.default_rng(number // 2).normal(60, 20, label.shape)
            image = np.clip(noise + 90 * label, 0, 255).astype(np.uint8)
            moved = [np.roll(plane, 3 * shift + number % 2, 1) for plane in (image, (label > 0).astype(np.uint8) * 255)]
            frames.append(Image.fromarray(moved[0]))
            masks.append(Image.fromarray(moved[1]))
        for kind, pages in (("images", frames), ("masks", masks)):
            path = source / kind / f"P{number // 2:02d}_clip{number}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            pages[0].save(path, save_all=True, append_images=pages[1:])
    typed(tmp_path, "convert", "masks", source, "-d", 503)
    name = next((tmp_path / "fmseg_raw").glob("Dataset503_*")).name
    rows = "".join(f"P{number // 2:02d}_clip{number},P{number // 2:02d}\n" for number in range(6))
    (tmp_path / "fmseg_raw" / name / "patients.csv").write_text(f"case,patient\n{rows}")
    typed(tmp_path, "doctor", "-d", 503, "-np", 0)
    assert not [each for each in findings(tmp_path, name) if "look" in each or "same" in each or "error" in each]
    typed(tmp_path, "plan_and_preprocess", "-d", 503, "-np", 0)
    typed(tmp_path, "pretrain", "-d", 503, *PRETRAIN)
    typed(tmp_path, "train", 503, 0, "-r", "linear", *SHORT)
    typed(tmp_path, "predict", "-i", source / "images", "-o", tmp_path / "out")
    for path in (source / "images").iterdir():
        labels = read_case(CaseFiles("a", (tmp_path / "out" / path.name,), None)).voxels
        assert labels.shape == (1, 4, 96, 128), path.name
