"""What is in the datasets that foreign layouts become."""

import csv
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from layout_sources import (
    MAKERS,
    box,
    coco,
    contents,
    make_fetal_planes_db,
    make_images,
    make_masks,
    make_table,
    noise,
    write_image,
)
from PIL import Image

from fmseg.cli.convert_commands import LAYOUTS
from fmseg.errors import BadData, BadRecord
from fmseg.imaging.case import BadFile
from fmseg.imaging.object_arrays import read_dictionary
from fmseg.imaging.readers import read_case, read_label
from fmseg.records.cases import CaseFiles
from fmseg.records.dataset import Dataset
from fmseg.stages.convert import convert, layouts
from fmseg.stages.convert.coco import _runs
from fmseg.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "work").mkdir()
    return Workspace.find(tmp_path / "work")


@pytest.fixture
def brought(workspace, tmp_path):
    """Return a function that converts a layout's source, or another maker's."""

    def bring(layout, maker=None):
        summary = convert(workspace, layout, (maker or MAKERS[layout])(tmp_path / "source"), 501)
        return summary, Dataset.load(summary.folder)

    return bring


def label_of(dataset: Dataset, case: str) -> np.ndarray:
    (files,) = [files for files in dataset.training_cases() if files.name == case]
    return read_label(files.label)[0][0]


def test_the_help_names_all_layouts():
    assert {name.strip() for name in LAYOUTS.replace(" or", "").split(",")} == {"auto", *layouts}


def test_fetal_planes_db_by_its_own_table(brought):
    summary, dataset = brought("fetal_planes", make_fetal_planes_db)
    assert summary.skipped == () and (summary.num_cases, summary.num_tests, summary.num_patients) == (3, 1, 3)
    assert sorted(dataset.classes_of_cases().values()) == ["brain", "maternal cervix", "other"]
    assert (dataset.folder / "labelsTs.csv").read_text().splitlines()[1].endswith(",abdomen")
    assert set(dataset.patients_of_cases().values()) == {"Patient00001", "Patient00002", "Patient00003"}


def test_a_row_of_fetal_planes_db_without_image_is_listed(workspace, tmp_path):
    source = make_fetal_planes_db(tmp_path / "source")
    (source / "Images" / "Patient00002_Plane2_1_of_2.png").unlink()
    write_image(source / "Images" / "more.png", noise(1))
    listed = dict(convert(workspace, "fetal_planes", source, 501).skipped)
    assert "no such image" in listed["Patient00002_Plane2_1_of_2"]
    assert "does not name it" in listed["Images/more.png"]


@pytest.mark.parametrize("layout", ["msd", "nnunet_v1"])
def test_older_datasets_of_nnunet_and_the_decathlon(brought, layout):
    summary, dataset = brought(layout)
    assert dataset.channel_names == ("T2", "ADC") and dataset.labels.names == ("PZ", "TZ")
    assert (summary.num_cases, summary.num_tests) == (2, 1)
    case = read_case(dataset.training_cases()[0])
    assert case.voxels.shape == (2, 3, 20, 24) and case.geometry.spacing_mm == (3.0, 0.5, 0.5)


def test_fass_structures_are_painted_in_order_and_women_are_patients(brought):
    summary, dataset = brought("fass")
    assert summary.skipped == () and dataset.labels.names == ("aorta", "liver", "stomach", "umbilical vein")
    assert dataset.patients_of_cases() == {"P01_IMG1": "P01", "P01_IMG2": "P01", "P02_IMG1": "P02"}
    label = label_of(dataset, "P02_IMG1")
    assert label[9, 9] == 2 and label[13, 13] == 4 and label[25, 21] == 1 and label[35, 37] == 3
    assert set(np.unique(label_of(dataset, "P01_IMG1"))) == {0, 1, 2, 4}


class Evil:
    def __reduce__(self):
        return print, ("this must not be printed",)


def test_dictionaries_of_arrays_are_parsed_and_nothing_is_called(tmp_path, capsys):
    content = {
        "a": noise(1),
        "deep": {"b": np.asfortranarray(noise(2).astype(">f4")), "n": 5, "s": "x", "t": (1, None)},
    }
    np.save(tmp_path / "good.npy", np.array(content, dtype=object), allow_pickle=True)
    found = read_dictionary(tmp_path / "good.npy")
    np.testing.assert_array_equal(found["a"], content["a"])
    np.testing.assert_array_equal(found["deep"]["b"], content["deep"]["b"])
    assert (found["deep"]["n"], found["deep"]["s"], found["deep"]["t"]) == (5, "x", (1, None))
    np.save(tmp_path / "evil.npy", np.array({"a": Evil()}, dtype=object), allow_pickle=True)
    with pytest.raises(BadFile, match="print', which could run code"):
        read_dictionary(tmp_path / "evil.npy")
    assert capsys.readouterr().out == ""
    good = (tmp_path / "good.npy").read_bytes()
    damaged = (good[:-400], good[:60], b"text", good[:130] + b"\x80\x05R.", good.replace(b"f4", b"O8"))
    for number, data in enumerate(damaged):
        (tmp_path / f"{number}.npy").write_bytes(data)
        with pytest.raises(BadFile, match=f"{number}.npy"):
            read_dictionary(tmp_path / f"{number}.npy")


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_dictionaries_of_older_numpy_are_parsed_too(tmp_path, protocol):
    import pickle

    content = {"structures": {"liver": box(1), "vein": box(1).astype(bool)}}
    with open(tmp_path / "a.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        stream = pickle.dumps(np.array(content, dtype=object), protocol=protocol)
        file.write(stream.replace(b"numpy._core.multiarray", b"numpy.core.multiarray") if protocol < 4 else stream)
    found = read_dictionary(tmp_path / "a.npy")["structures"]
    for name, mask in content["structures"].items():
        np.testing.assert_array_equal(found[name], mask)


def test_jnu_ifm_frames_are_grouped_by_video(brought):
    summary, dataset = brought("jnu_ifm")
    assert len(set(dataset.patients_of_cases().values())) == 2 and summary.num_cases == 4
    assert dataset.declaration.patient_unit == "video"
    assert set(np.unique(label_of(dataset, "20190830T115515_2"))) == {0, 1, 2}
    assert not label_of(dataset, "20190830T115515_15").any()
    assert all("coloured copy" in reason for file, reason in summary.skipped if "mask_enhance" in file)


def test_psfhs_slices_are_colours(brought):
    _, dataset = brought("psfhs")
    case = read_case(dataset.training_cases()[0])
    np.testing.assert_array_equal(case.voxels[:, 0], np.stack([noise(colour) for colour in range(3)]))
    np.testing.assert_array_equal(label_of(dataset, "03744"), box(1, 3) + box(2, 22))


def test_busi_masks_of_an_image_are_united_and_kinds_are_classes(brought):
    _, dataset = brought("busi")
    np.testing.assert_array_equal(label_of(dataset, "benign_1"), box(1, 4) + box(1, 24))
    np.testing.assert_array_equal(label_of(dataset, "malignant_1"), box(2, 4))
    assert not label_of(dataset, "normal_1").any()


def test_camus_test_patients_and_pixel_sizes(brought):
    summary, dataset = brought("camus")
    assert (summary.num_cases, summary.num_tests, summary.num_patients) == (4, 4, 2)
    assert read_case(dataset.training_cases()[0]).geometry.spacing_mm[1:] == pytest.approx((0.3, 0.2))
    assert {reason for _, reason in summary.skipped} == {"a clip that begins and ends with the ED and ES images"}


def test_a_table_of_classes(brought):
    summary, dataset = brought("table")
    assert dataset.classes_of_cases() == {"0": "solid", "1": "cyst"} and summary.num_tests == 1
    assert dataset.patients_of_cases() == {"0": "1", "1": "2", "2": "3"}


def test_a_table_of_its_own_is_no_folder_that_cannot_be_listed(workspace, tmp_path, caplog):
    source = make_table(tmp_path / "source")
    convert(workspace, "auto", next(source.glob("*.csv")), 501)
    assert "cannot be listed" not in caplog.text


def test_a_table_of_masks_names_rows_that_cannot_be_used(workspace, tmp_path):
    source = make_masks(tmp_path / "source")
    rows = [("path", "mask"), *((f"images/{name}.jpg", f"masks/{name}.png") for name in "abcd")]
    with open(source / "list.tsv", "w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows(rows)
    summary = convert(workspace, "table", source / "list.tsv", 501)
    assert (summary.num_cases, summary.task, summary.classes) == (3, "segmentation", ("foreground",))
    assert dict(summary.skipped) == {"images/d.jpg": "the path 'images/d.jpg' is not there"}


@pytest.mark.parametrize("head", ["path,patient", "Image,Subject_ID", "file_name,subject"])
def test_a_table_of_paths_alone_is_an_unlabelled_set(workspace, tmp_path, head):
    source = make_table(tmp_path / "source")
    (source / "images.csv").write_text(f"{head}\nx/0.png,A\ny/1.png,B\n")
    summary = convert(workspace, "table", source / "images.csv", 501)
    dataset = Dataset.load(summary.folder)
    assert (summary.task, summary.num_cases) == ("unlabelled", 2)
    assert [dataset.patients_of_cases()[case.name] for case in dataset.training_cases()] == ["A", "B"]


def test_a_parquet_table(workspace, tmp_path):
    pytest.importorskip("pyarrow")
    from pyarrow import Table, parquet

    source = make_images(tmp_path / "source")
    parquet.write_table(
        Table.from_pydict({"image": ["monday/a.png", "tuesday/a.png"], "label": ["x", "y"]}), source / "t.parquet"
    )
    summary = convert(workspace, "table", source, 501)
    assert Dataset.load(summary.folder).classes_of_cases() == {"monday_a": "x", "tuesday_a": "y"}


def test_coco_polygons_and_run_lengths(brought):
    summary, dataset = brought("coco")
    assert dataset.labels.names == ("head", "organ") and summary.num_tests == 1
    head, organ = label_of(dataset, "a"), label_of(dataset, "b")
    assert head[5:25, 10:30].all() and head.sum() == 400
    assert organ.sum() == 2 * 24 and (organ[10:22, 5:7] == 2).all()


def test_coco_run_lengths_in_their_short_form():
    """By hand: 1, 2, 3, then 4 as the difference 2 to the last but one, 300 in two characters, and a negative one."""
    assert _runs("123") == [1, 2, 3]
    assert _runs("1232") == [1, 2, 3, 4]
    assert _runs("\\90"[:2]) == [300]
    assert _runs("9;9" + "O") == [9, 11, 9, 10]
    with pytest.raises(BadData, match="damaged"):
        _runs("o")


def test_coco_boxes_are_no_masks_and_wrong_files_are_named(workspace, tmp_path):
    write_image(tmp_path / "source" / "a.png", noise(0))
    write_image(tmp_path / "source" / "b.png", noise(0))
    square = [[10, 5, 30, 5, 30, 25, 10, 25]]
    drawn = [
        {"id": 4, "image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4]},
        {"id": 5, "image_id": 2, "category_id": 3, "segmentation": square},
    ]
    path = tmp_path / "source" / "all.json"
    path.write_text(coco(["a.png", "b.png", "../a.png"], drawn))
    listed = dict(convert(workspace, "coco", path, 501).skipped)
    assert "annotation 4 has a box" in listed["a.png"]
    path.write_text(coco(["a.png"], [{"id": 5, "image_id": 1, "category_id": 8}]))
    with pytest.raises(BadRecord, match="category 8"):
        convert(workspace, "coco", path, 502)


# masks of all kinds


def make_kind(folder: Path, draw, ending: str = ".png", number: int = 6) -> Path:
    for index in range(number):
        write_image(folder / "images" / f"{index}.png", noise(index))
        mask = draw(index)
        if isinstance(mask, Image.Image):
            (folder / "masks").mkdir(exist_ok=True)
            mask.save(folder / "masks" / f"{index}{ending}")
        else:
            write_image(folder / "masks" / f"{index}{ending}", mask)
    return folder


def painted(index: int) -> np.ndarray:
    """Red and green in OpenCV's order."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[5:15, 5 + index : 20 + index] = (0, 0, 255)
    image[20:30, 30:45] = (0, 255, 0)
    return image


def line(index: int) -> np.ndarray:
    return cv2.ellipse(np.zeros((40, 60), np.uint8), (30, 20), (18, 12), 10.0 * index, 0, 360, 255, 1)


def test_colours_become_classes(workspace, tmp_path):
    summary = convert(workspace, "masks", make_kind(tmp_path / "source", painted), 501)
    assert summary.classes == ("colour_00ff00", "colour_ff0000")
    label = label_of(Dataset.load(summary.folder), "0")
    assert (label[25, 35], label[10, 10], label[0, 0]) == (1, 2, 0)


def test_declared_colours_give_names_and_bear_jpeg(workspace, tmp_path):
    source = make_kind(tmp_path / "source", painted, ".jpg")
    said = {"mask_colors": {"head": "#ff0000", "organ": "#00ff00"}, "modality": "mri", "group_regex": "^(.)"}
    (source / "dataset.json").write_text(json.dumps(said))
    summary = convert(workspace, "masks", source, 501)
    assert (summary.classes, summary.modality, summary.skipped) == (("head", "organ"), "mri", ())
    label = label_of(Dataset.load(summary.folder), "0")
    assert (label[10, 10], label[25, 35]) == (1, 2) and (label == 1).sum() == pytest.approx(150, rel=0.1)


def test_colours_that_jpeg_has_mixed_are_refused(workspace, tmp_path):
    def mixed(index: int) -> np.ndarray:
        return np.random.default_rng(index).integers(0, 255, (40, 60, 3), np.uint8)

    with pytest.raises(BadData, match="too many for classes"):
        convert(workspace, "masks", make_kind(tmp_path / "source", mixed), 501)


def test_a_dataset_whose_masks_must_be_mapped_says_how_and_is_brought_with_patients(raw_dataset):
    """The command that the doctor gives is typed as it stands."""
    workspace = raw_dataset()
    folder = workspace.raw_dataset("Dataset501_Discs")
    colours = np.array([[0, 0, 0], [0, 0, 255], [0, 255, 0]], np.uint8)  # in OpenCV's order
    wanted = {}
    for path in (folder / "labelsTr").iterdir():
        wanted[path.stem] = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        write_image(path, colours[wanted[path.stem]])
    declared = json.loads((folder / "dataset.json").read_text())
    said = {"mask_colors": {"head": "#ff0000", "organ": "#00ff00"}}
    (folder / "dataset.json").write_text(json.dumps(declared | said))
    (folder / "patients.csv").write_text("case,patient\n" + "".join(f"{case},{case[:3]}\n" for case in wanted))
    with pytest.raises(BadRecord, match="'mask_colors'") as refused:
        Dataset.load(folder)
    command = re.search(r"fmseg convert masks (\S+) -d (\d+)", str(refused.value))
    summary = convert(workspace, "masks", Path(command[1]), int(command[2]))
    assert (summary.dataset, summary.num_cases, summary.skipped) == ("Dataset502_Discs", len(wanted), ())
    dataset = Dataset.load(summary.folder)
    assert dataset.labels.names == ("head", "organ") and summary.num_patients == 3
    for case in dataset.training_cases():
        np.testing.assert_array_equal(label_of(dataset, case.name), wanted[case.name])


def make_named(folder: Path, stems: list[str]) -> Path:
    for index, stem in enumerate(stems):
        write_image(folder / "images" / f"{stem}.png", noise(index))
        write_image(folder / "masks" / f"{stem}.png", box(255, 5 + index))
    return folder


def test_patients_come_along_under_the_names_that_the_images_get(workspace, tmp_path):
    source = make_named(tmp_path / "source", ["P1 (1)", "P1 (2)", "P2_1"])
    # the last one was left out for some reason
    (source / "patients.csv").write_text("case;patient;centre\nP1 (1);A;x\nP1 (2);A;y\nP2_1;B;x\nP3 (1);C;x\n")
    summary = convert(workspace, "masks", source, 501)
    dataset = Dataset.load(summary.folder)
    assert dataset.patients_of_cases() == {"P1_1": "A", "P1_2": "A", "P2_1": "B", "P3 (1)": "C"}
    assert dataset.centres_of_cases()["P1_2"] == "y" and (summary.num_patients, summary.skipped) == (2, ())


def test_a_table_of_patients_that_fits_no_case_or_two_at_once_is_listed(workspace, tmp_path):
    source = make_named(tmp_path / "source", ["a_1", "b_1"])
    for number, (rows, reason) in enumerate((("x,A", "the first one is x"), ("a 1,A\na_1,B", "may both be"))):
        (source / "patients.csv").write_text(f"case,patient\n{rows}\n")
        summary = convert(workspace, "masks", source, 501 + number, f"Try{number}")
        ((file, why),) = summary.skipped
        assert file == "patients.csv" and reason in why


def test_patients_of_an_expression_are_counted_and_one_that_does_not_fit_is_told(workspace, tmp_path, caplog):
    source = make_named(tmp_path / "source", ["P1_a", "P1_b", "P2_a"])
    (source / "dataset.json").write_text('{"group_regex": "^(P[0-9])"}')
    assert convert(workspace, "masks", source, 501).num_patients == 2
    assert not caplog.text
    (source / "dataset.json").write_text('{"group_regex": "^(Q[0-9])"}')
    assert convert(workspace, "masks", source, 502, "Other").num_patients == 0
    assert "does not fit the case 'P1_a'" in caplog.text


def test_an_image_and_its_mask_may_write_accents_in_two_ways(workspace, tmp_path):
    for index in range(3):
        write_image(tmp_path / "source" / "images" / f"M\u00fcller_{index}.png", noise(index))
        write_image(tmp_path / "source" / "masks" / f"Mu\u0308ller_{index}.png", box(255, 5))
    summary = convert(workspace, "masks", tmp_path / "source", 501)
    assert (summary.num_cases, summary.skipped) == (3, ())


@pytest.mark.parametrize("layout", ["table", "coco"])
def test_a_file_that_is_named_is_found_whichever_way_its_accents_are_written(layout, workspace, tmp_path):
    source = tmp_path / "source"
    for index in range(2):
        write_image(source / "images" / f"Mu\u0308ller {index}.png", noise(index))
    names = [f"images/M\u00fcller {index}.png" for index in range(2)]
    if layout == "coco":
        (source / "a.json").write_text(coco(names, []))
    else:
        rows = "".join(f"{name},{kind}\n" for name, kind in zip(names, "xy", strict=True))
        (source / "a.csv").write_text(f"path,class\n{rows}")
    summary = convert(workspace, layout, source, 501)
    assert [case.name for case in Dataset.load(summary.folder).training_cases()] == ["M\u00fcller_0", "M\u00fcller_1"]


def test_outlines_are_found_and_filled(workspace, tmp_path):
    summary = convert(workspace, "masks", make_kind(tmp_path / "source", line), 501)
    dataset = Dataset.load(summary.folder)
    for index in range(6):
        assert label_of(dataset, str(index)).sum() == pytest.approx(np.pi * 18.5 * 12.5, rel=0.03)


def test_outlines_can_be_meant_as_they_are(workspace, tmp_path):
    source = make_kind(tmp_path / "source", line)
    (source / "dataset.json").write_text('{"mask_outlines": false}')
    summary = convert(workspace, "masks", source, 501)
    np.testing.assert_array_equal(label_of(Dataset.load(summary.folder), "0"), line(0) // 255)


def test_values_are_renumbered_and_named(workspace, tmp_path):
    source = make_kind(tmp_path / "source", lambda index: box(50, 5) + box(200, 25), ".bmp")
    assert convert(workspace, "masks", source, 501).classes == ("class_50", "class_200")
    (source / "dataset.json").write_text('{"labels": {"background": 0, "liver": 200, "vein": 50}}')
    summary = convert(workspace, "masks", source, 502)
    assert summary.classes == ("vein", "liver")
    np.testing.assert_array_equal(label_of(Dataset.load(summary.folder), "0"), box(1, 5) + box(2, 25))


def test_a_palette_goes_by_its_indices_and_one_bit_by_nought_and_one(workspace, tmp_path):
    def palette(index: int) -> Image.Image:
        image = Image.fromarray(box(1, 5) + box(2, 25)).convert("P")
        image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        return image

    summary = convert(workspace, "masks", make_kind(tmp_path / "one", palette), 501)
    np.testing.assert_array_equal(label_of(Dataset.load(summary.folder), "0"), box(1, 5) + box(2, 25))
    source = make_kind(tmp_path / "two", lambda index: Image.fromarray(box(255) > 0))
    summary = convert(workspace, "masks", source, 502)
    np.testing.assert_array_equal(label_of(Dataset.load(summary.folder), "0"), box(1))


def test_black_and_white_that_was_saved_as_jpeg(workspace, tmp_path):
    source = make_kind(tmp_path / "source", lambda index: box(255, 5), ".jpg")
    summary = convert(workspace, "masks", source, 501)
    assert summary.classes == ("foreground",)
    np.testing.assert_array_equal(label_of(Dataset.load(summary.folder), "0"), box(1, 5))


def test_masks_beside_images_and_several_of_one(workspace, tmp_path):
    source = tmp_path / "source"
    for part in ("train", "test"):
        write_image(source / part / "a.png", noise(0))
        write_image(source / part / "a_mask.png", box(255, 3))
        write_image(source / part / "a_mask_1.png", box(255, 25))
    summary = convert(workspace, "masks", source, 501)
    assert (summary.num_cases, summary.num_tests, summary.skipped) == (1, 1, ())
    np.testing.assert_array_equal(label_of(Dataset.load(summary.folder), "train_a"), box(1, 3) + box(1, 25))


def test_a_folder_or_a_suffix_for_each_class(workspace, tmp_path):
    for name in ("one", "two"):
        write_image(tmp_path / name / "images" / "a.png", noise(0))
    write_image(tmp_path / "one" / "masks" / "vein" / "a.png", box(255, 3))
    write_image(tmp_path / "one" / "masks" / "liver" / "a.png", box(255, 25))
    summary = convert(workspace, "masks", tmp_path / "one", 501)
    assert summary.classes == ("liver", "vein")
    np.testing.assert_array_equal(label_of(Dataset.load(summary.folder), "a"), box(2, 3) + box(1, 25))
    write_image(tmp_path / "two" / "images" / "a-V.png", box(255, 3))
    write_image(tmp_path / "two" / "images" / "a-L.png", box(255, 25))
    (tmp_path / "two" / "dataset.json").write_text('{"mask_suffixes": {"vein": "-V", "liver": "-L"}}')
    summary = convert(workspace, "masks", tmp_path / "two", 502)
    np.testing.assert_array_equal(label_of(Dataset.load(summary.folder), "a"), box(1, 3) + box(2, 25))


@pytest.mark.parametrize("words", [("head", "liver"), ("0000",), ("roi",)])
def test_words_behind_the_names_of_images_are_classes(workspace, tmp_path, words):
    source = tmp_path / "source"
    for name in ("P1_2", "P1"):
        write_image(source / "imagesTr" / f"{name}_0000.png", noise(0))
        for corner, word in enumerate(words):
            write_image(source / "labelsTr" / f"{name}_{word}.png", box(1, 3 + 22 * corner))
    write_image(source / "labelsTr" / "P2_head.png", box(1, 3))  # its image was lost
    summary = convert(workspace, "masks", source, 501)
    assert summary.num_cases == 2 and [name for name, _ in summary.skipped] == ["labelsTr/P2_head.png"]
    assert summary.classes == (words if len(words) == 2 else ("foreground",))
    expected = sum(box(value, 3 + 22 * (value - 1)) for value in range(1, len(words) + 1))
    for name in ("P1", "P1_2"):
        np.testing.assert_array_equal(label_of(Dataset.load(summary.folder), name), expected)


def test_a_number_behind_the_name_of_an_image_may_be_that_of_another(workspace, tmp_path):
    write_image(tmp_path / "source" / "imagesTr" / "P1.png", noise(0))
    write_image(tmp_path / "source" / "labelsTr" / "P1_2.png", box(1, 3))
    with pytest.raises(BadData, match=r"P1_2\.png: this mask has no image of its name"):
        convert(workspace, "masks", tmp_path / "source", 501)


def test_what_does_not_fit_is_listed(workspace, tmp_path):
    source = make_masks(tmp_path / "source")
    write_image(source / "masks" / "a.png", np.zeros((20, 60), np.uint8))
    write_image(source / "masks" / "lonely.png", box(255))
    write_image(source / "images" / "bare.png", noise(3))
    (source / "images" / "b.jpg").write_bytes(b"broken")
    before = contents(source)
    summary = convert(workspace, "masks", source, 501)
    listed = dict(summary.skipped)
    assert summary.num_cases == 1 and contents(source) == before
    assert "(1, 20, 60), its image (1, 40, 60)" in listed["images/a.jpg"]
    assert "b.jpg" in listed["masks/b.png"] and "b.jpg" in listed["images/b.jpg"]
    assert "no image of its name" in listed["masks/lonely.png"] and "no mask" in listed["images/bare.png"]


def test_images_of_several_endings_stay_as_they_are(workspace, tmp_path):
    source = make_masks(tmp_path / "source")
    (source / "images" / "b.jpg").unlink()
    write_image(source / "images" / "b.bmp", noise(1))
    dataset = Dataset.load(convert(workspace, "masks", source, 501).folder)
    assert [case.images[0].suffix for case in dataset.training_cases()] == [".jpg", ".bmp", ".jpg"]
    assert read_case(CaseFiles("b", dataset.training_cases()[1].images, None)).voxels.shape == (1, 1, 40, 60)
    np.testing.assert_array_equal(label_of(dataset, "b"), box(1, 6))
