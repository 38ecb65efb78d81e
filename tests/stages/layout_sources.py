"""Foreign layouts, written here in miniature as their publishers describe them."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np

from fmseg.imaging.case import Geometry
from fmseg.imaging.readers import write_label

FLAT = Geometry(None, is_2d=True)
PIXELS = Geometry((1.0, 0.3, 0.2), is_2d=True)


def write_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (40, 60), dtype=np.uint8)


def box(value: int, corner: int = 10, dtype: type = np.uint8) -> np.ndarray:
    mask = np.zeros((40, 60), dtype)
    mask[corner : corner + 12, corner : corner + 15] = value
    return mask


def make_hc18(folder: Path) -> Path:
    """Three heads of two exams, their outlines, and the table."""
    lines = ["filename,pixel size(mm),head circumference (mm)"]
    for index, case in enumerate(("392_HC", "392_2HC", "007_HC")):
        write_image(folder / "training_set" / f"{case}.png", noise(index))
        outline = cv2.ellipse(np.zeros((40, 60), np.uint8), (30, 20), (18, 12), 10.0 * index, 0, 360, 255, 1)
        write_image(folder / "training_set" / f"{case}_Annotation.png", outline)
        lines.append(f"{case}.png,0.{index + 1},44.3")
    (folder / "training_set_pixel_size_and_HC.csv").write_text("\n".join(lines) + "\n")
    return folder


def make_fetal_planes(folder: Path) -> Path:
    for index, (patient, plane) in enumerate([(1, 2), (1, 3), (2, 4), (3, 9)]):
        write_image(folder / f"Patient{patient:05d}_Plane{plane}_1_of_1_png.rf.{index}.jpg", noise(index))
    return folder


def make_fetal_planes_db(folder: Path) -> Path:
    """Blanks where the real table has them."""
    lines = ["Image_name;Patient_num;Plane;Brain_plane;Operator;US_Machine;Train "]
    rows = [(1, "Other", 1), (1, "Maternal cervix", 1), (2, "Fetal brain", 1), (3, "Fetal abdomen", 0)]
    for index, (patient, plane, train) in enumerate(rows):
        name = f"Patient{patient:05d}_Plane{index}_1_of_2"
        write_image(folder / "Images" / f"{name}.png", noise(index))
        lines.append(f"{name};{patient};{plane};Not A Brain;Op. 1;Voluson E6;{train} ")
    (folder / "FETAL_PLANES_DB_data.csv").write_text("\n".join(lines) + "\n")
    return folder


def make_images(folder: Path) -> Path:
    write_image(folder / "monday" / "a.png", noise(0))
    write_image(folder / "tuesday" / "a.png", noise(1))
    return folder


def make_nnunet(folder: Path) -> Path:
    write_image(folder / "imagesTr" / "one_0000.png", noise(0))
    write_image(folder / "labelsTr" / "one.png", noise(0) // 128)
    declaration = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".png"}
    (folder / "dataset.json").write_text(json.dumps(declaration | {"numTraining": 1, "extra": "kept"}))
    return folder


def old_declaration(cases: list[str], tests: list[str]) -> dict[str, object]:
    return {
        "name": "Prostate",
        "modality": {"0": "T2", "1": "ADC"},
        "labels": {"0": "background", "1": "PZ", "2": "TZ"},
        "numTraining": len(cases),
        "numTest": len(tests),
        "training": [{"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in cases],
        "test": [f"./imagesTs/{case}.nii.gz" for case in tests],
    }


def write_volume(path: Path, *channels: np.ndarray) -> None:
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.stack(channels) if len(channels) > 1 else channels[0]
    nibabel.save(nibabel.Nifti1Image(values.T, np.diag([0.5, 0.5, 3.0, 1.0])), path)


def volume(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 900, (3, 20, 24)).astype(np.int16)


def make_msd(folder: Path) -> Path:
    """Both channels in one file."""
    for index, (part, case) in enumerate((("Tr", "prostate_00"), ("Tr", "prostate_02"), ("Ts", "prostate_03"))):
        write_volume(folder / f"images{part}" / f"{case}.nii.gz", volume(index), volume(index + 9))
        if part == "Tr":
            write_volume(folder / "labelsTr" / f"{case}.nii.gz", (volume(index) % 3).astype(np.uint8))
    declaration = old_declaration(["prostate_00", "prostate_02"], ["prostate_03"])
    (folder / "dataset.json").write_text(json.dumps(declaration))
    return folder


def make_nnunet_v1(folder: Path) -> Path:
    """Each channel in a file of its own."""
    for index, (part, case) in enumerate((("Tr", "p_00"), ("Tr", "p_02"), ("Ts", "p_03"))):
        for channel in range(2):
            write_volume(folder / f"images{part}" / f"{case}_{channel:04d}.nii.gz", volume(index + 5 * channel))
        if part == "Tr":
            write_volume(folder / "labelsTr" / f"{case}.nii.gz", (volume(index) % 3).astype(np.uint8))
    (folder / "dataset.json").write_text(json.dumps(old_declaration(["p_00", "p_02"], ["p_03"])))
    return folder


def make_fass(folder: Path) -> Path:
    inner = folder / "Fetal Abdominal Structures"
    for index, case in enumerate(("P01_IMG1", "P01_IMG2", "P02_IMG1")):
        write_image(inner / "IMAGES" / f"{case}.png", noise(index))
        structures = {"liver": box(1, 8, np.float64), "artery": box(1, 20), "vein": box(1, 12).astype(bool)}
        if index:
            structures["stomach"] = np.asfortranarray(box(1, 26, np.int64))
        (inner / "ARRAY_FORMAT").mkdir(exist_ok=True)
        content = {"image": noise(index), "structures": structures}
        np.save(inner / "ARRAY_FORMAT" / f"{case}.npy", np.array(content, dtype=object), allow_pickle=True)
    return folder


def make_jnu_ifm(folder: Path) -> Path:
    for video in ("20190830T115515", "20190909T155747"):
        for index in (2, 15):
            write_image(folder / video / "image" / f"{video}_{index}.png", noise(index))
            mask = box(7, 4) + box(8, 25) if index == 2 else box(0)
            write_image(folder / video / "mask" / f"{video}_{index}_mask.png", mask)
            write_image(folder / video / "mask_enhance" / f"{video}_{index}_mask.png", mask * 20)
        (folder / video / "frame_label.csv").write_text("frame_id,frame_label\n2,6\n15,3\n")
    return folder


def make_psfhs(folder: Path) -> Path:
    import SimpleITK as sitk

    for index, name in enumerate(("03744.mha", "03745.mha")):
        for part, values in (
            ("image_mha", np.stack([noise(3 * index + colour) for colour in range(3)])),
            ("label_mha", box(1, 3) + box(2, 22)),
        ):
            (folder / "PSFHS" / part).mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(sitk.GetImageFromArray(values), str(folder / "PSFHS" / part / name))
    return folder


def make_busi(folder: Path) -> Path:
    root = folder / "Dataset_BUSI_with_GT"
    for index, kind in enumerate(("benign", "malignant", "normal")):
        write_image(root / kind / f"{kind} (1).png", np.stack([noise(index)] * 3, axis=-1))
        write_image(root / kind / f"{kind} (1)_mask.png", box(255 * (kind != "normal"), 4))
    write_image(root / "benign" / "benign (1)_mask_1.png", box(255, 24))
    return folder


def make_camus(folder: Path) -> Path:
    root = folder / "database_nifti"
    for patient in ("patient0001", "patient0002"):
        for view in ("2CH", "4CH"):
            for phase in ("ED", "ES"):
                name = f"{patient}_{view}_{phase}"
                (root / patient).mkdir(parents=True, exist_ok=True)
                write_label(noise(len(name))[None], PIXELS, root / patient / f"{name}.nii.gz")
                write_label((box(1, 3) + box(3, 22))[None], PIXELS, root / patient / f"{name}_gt.nii.gz")
            write_volume(root / patient / f"{patient}_{view}_half_sequence.nii.gz", volume(1))
    (folder / "database_split").mkdir()
    (folder / "database_split" / "subgroup_testing.txt").write_text("patient0002\n")
    return folder


def make_masks(folder: Path) -> Path:
    for index, name in enumerate(("a", "b", "c")):
        write_image(folder / "images" / f"{name}.jpg", noise(index))
        write_image(folder / "masks" / f"{name}.png", box(255, 5 + index))
    return folder


def make_table(folder: Path) -> Path:
    rows = []
    for index, (where, patient, split) in enumerate((("x", "1", "train"), ("y", "2", "train"), ("y", "3", "test"))):
        write_image(folder / where / f"{index}.png", noise(index))
        rows.append((f"{where}/{index}.png", "cyst" if index else "solid", patient, split))
    with open(folder / "images.csv", "w", newline="") as file:
        csv.writer(file).writerows([("Image", "Diagnosis", "Patient_ID", "Split"), *rows])
    return folder


def coco(images: list[str], annotations: list[dict[str, object]]) -> str:
    described = [{"id": n, "file_name": name, "height": 40, "width": 60} for n, name in enumerate(images, start=1)]
    categories = [{"id": 7, "name": "organ"}, {"id": 3, "name": "head"}]
    return json.dumps({"images": described, "annotations": annotations, "categories": categories})


def make_coco(folder: Path) -> Path:
    for index, name in enumerate(("a.png", "b.png", "c.png")):
        write_image(folder / "pictures" / name, noise(index))
    square = [[10, 5, 30, 5, 30, 25, 10, 25]]
    counts = [5 * 40 + 10, 12, 28, 12, 60 * 40 - (5 * 40 + 10 + 12 + 28 + 12)]  # two columns of twelve
    drawn = [
        {"id": 1, "image_id": 1, "category_id": 3, "segmentation": square, "iscrowd": 0},
        {"id": 2, "image_id": 2, "category_id": 7, "segmentation": {"size": [40, 60], "counts": counts}},
    ]
    (folder / "annotations").mkdir()
    (folder / "annotations" / "train.json").write_text(coco(["a.png", "b.png"], drawn))
    (folder / "annotations" / "test.json").write_text(coco(["c.png"], []))
    return folder


MAKERS = {
    "busi": make_busi,
    "camus": make_camus,
    "coco": make_coco,
    "fass": make_fass,
    "fetal_planes": make_fetal_planes,
    "hc18": make_hc18,
    "images": make_images,
    "jnu_ifm": make_jnu_ifm,
    "masks": make_masks,
    "msd": make_msd,
    "nnunet": make_nnunet,
    "nnunet_v1": make_nnunet_v1,
    "psfhs": make_psfhs,
    "table": make_table,
}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
