"""Datasets whose dataset.json, tables or folds are wrong."""

import json
import os
from pathlib import Path

from sound import LABELS, Bad, collected, cut, declare, discs, image, save

RECORDS: list[Bad] = []
bad = collected(RECORDS)
PATIENTS = "".join(f"P{number // 2:02d}_{number % 2},a{number // 2}\n" for number in range(6))
CASES = [f"P{number // 2:02d}_{number % 2}" for number in range(6)]


def text(folder: Path, content: str | bytes) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    (folder / "dataset.json").write_bytes(data)


def source(folder: Path) -> str:
    return (folder / "dataset.json").read_text()


# dataset.json


@bad("dataset.json", "''", "cannot be printed")
def label_without_name(folder: Path) -> None:
    declare(folder, labels={"background": 0, "": 1, "organ": 2})


@bad("dataset.json", "cannot be printed")
def label_that_clears_the_screen(folder: Path) -> None:
    declare(folder, labels={"background": 0, "he\x1b[2Jad": 1, "organ": 2})


@bad("patients.csv", "no such file")
def folds_by_centre_without_centres(folder: Path) -> None:
    declare(folder, split_by="centre")


@bad("patients.csv", "one centre")
def folds_by_centre_of_one(folder: Path) -> None:
    declare(folder, split_by="centre")
    rows = "".join(f"{case},{case[:3]},here\n" for case in CASES)
    (folder / "patients.csv").write_text(f"case,patient,centre\n{rows}")


@bad("labelsTr.csv", "'nan'", "missing", code=0, base="classes")
def class_of_pandas_for_nothing(folder: Path) -> None:
    lines = "".join(f"{case},{'nan' if number % 2 else 'a'}\n" for number, case in enumerate(CASES))
    (folder / "labelsTr.csv").write_text(f"case,label\n{lines}")


@bad("dataset.json", "no such file")
def no_declaration(folder: Path) -> None:
    (folder / "dataset.json").unlink()


@bad("dataset.json", "empty")
def empty_declaration(folder: Path) -> None:
    text(folder, "")


@bad("dataset.json", "not valid JSON")
def half_a_declaration(folder: Path) -> None:
    cut(folder / "dataset.json")


@bad("dataset.json", "not valid JSON")
def comma_too_many(folder: Path) -> None:
    text(folder, source(folder).rstrip()[:-1] + ",}")


@bad("dataset.json", "not valid JSON")
def declaration_with_comments(folder: Path) -> None:
    text(folder, "// made by hand\n" + source(folder))


@bad("dataset.json", "object")
def declaration_that_is_a_list(folder: Path) -> None:
    text(folder, "[1, 2, 3]")


@bad("dataset.json", "object")
def declaration_that_is_nothing(folder: Path) -> None:
    text(folder, "null")


@bad("dataset.json", "'labels' is there twice")
def key_that_is_there_twice(folder: Path) -> None:
    text(folder, source(folder).rstrip()[:-1] + ', "labels": {"background": 0, "other": 1}}')


@bad("dataset.json", "'head' is there twice")
def label_that_is_there_twice(folder: Path) -> None:
    text(folder, source(folder).replace('"head": 1', '"head": 1, "head": 2').replace('"organ": 2', '"organ": 3'))


@bad("dataset.json", "UTF-8")
def declaration_in_latin_1(folder: Path) -> None:
    text(folder, source(folder).replace("head", "t\u00eate").encode("latin-1"))


@bad("dataset.json", "'numTraining'", "nan")
def number_that_is_none(folder: Path) -> None:
    text(folder, source(folder).replace('"numTraining": 6', '"numTraining": NaN'))


@bad("dataset.json", "nested")
def declaration_without_bottom(folder: Path) -> None:
    text(folder, '{"labels": ' + "[" * 100_000 + "]" * 100_000 + "}")


@bad("dataset.json", "JSON")
def number_of_ten_thousand_digits(folder: Path) -> None:
    text(folder, source(folder).replace('"numTraining": 6', '"numTraining": ' + "9" * 10_000))


@bad("dataset.json", "folder")
def declaration_that_is_a_folder(folder: Path) -> None:
    (folder / "dataset.json").unlink()
    (folder / "dataset.json").mkdir()


@bad("dataset.json", "nnU-Net v1")
def declaration_of_nnunet_v1(folder: Path) -> None:
    training = [{"image": f"./imagesTr/{case}.png", "label": f"./labelsTr/{case}.png"} for case in CASES]
    labels = {"0": "background", "1": "head", "2": "organ"}
    text(folder, json.dumps({"modality": {"0": "US"}, "labels": labels, "numTraining": 6, "training": training}))


@bad("dataset.json", "channel_names", "missing")
def no_channel_names(folder: Path) -> None:
    declare(folder, channel_names=None)


@bad("dataset.json", "channel_names")
def channels_counted_from_one(folder: Path) -> None:
    declare(folder, channel_names={"1": "B-mode"})


@bad("dataset.json", "channel_names")
def channels_as_a_list(folder: Path) -> None:
    declare(folder, channel_names=["B-mode"])


@bad("dataset.json", "channel_names")
def no_channels(folder: Path) -> None:
    declare(folder, channel_names={})


@bad("dataset.json", "labels")
def no_labels(folder: Path) -> None:
    declare(folder, labels=None)


@bad("dataset.json", "background")
def labels_without_background(folder: Path) -> None:
    declare(folder, labels={"head": 1, "organ": 2})


@bad("dataset.json", "background")
def background_of_one(folder: Path) -> None:
    declare(folder, labels={"background": 1, "head": 0, "organ": 2})


@bad("dataset.json", "background only")
def background_alone(folder: Path) -> None:
    declare(folder, labels={"background": 0})


@bad("dataset.json", "consecutive", "{1: 1, 3: 2}")
def labels_not_consecutive(folder: Path) -> None:
    declare(folder, labels={"background": 0, "head": 1, "organ": 3})


@bad("dataset.json", "consecutive")
def negative_label_value(folder: Path) -> None:
    declare(folder, labels={"background": 0, "head": 1, "organ": -2})


@bad("dataset.json", "organ")
def label_value_in_quotes(folder: Path) -> None:
    declare(folder, labels={"background": 0, "head": 1, "organ": "2"})


@bad("dataset.json", "organ")
def label_value_with_a_fraction(folder: Path) -> None:
    declare(folder, labels={"background": 0, "head": 1, "organ": 1.5})


@bad("dataset.json", "'head'", "'organ'", "same value")
def two_labels_of_one_value(folder: Path) -> None:
    declare(folder, labels={"background": 0, "head": 1, "organ": 1, "other": 2})


@bad("dataset.json", "ignore")
def ignore_that_is_not_the_highest(folder: Path) -> None:
    declare(folder, labels={"background": 0, "head": 1, "ignore": 2, "organ": 3})


@bad("dataset.json", "ignore")
def ignore_that_is_the_background(folder: Path) -> None:
    declare(folder, labels=LABELS | {"ignore": 0})


@bad("dataset.json", "ignore")
def ignore_that_is_a_region(folder: Path) -> None:
    declare(folder, labels=LABELS | {"ignore": [3, 4]})


@bad("dataset.json", "regions_class_order")
def regions_without_order(folder: Path) -> None:
    declare(folder, labels={"background": 0, "whole": [1, 2], "organ": 2})


@bad("dataset.json", "regions_class_order")
def order_of_too_few_regions(folder: Path) -> None:
    declare(folder, labels={"background": 0, "whole": [1, 2], "organ": 2}, regions_class_order=[1])


@bad("dataset.json", "regions_class_order", "7")
def order_of_unknown_values(folder: Path) -> None:
    declare(folder, labels={"background": 0, "whole": [1, 2], "organ": 2}, regions_class_order=[1, 7])


@bad("dataset.json", "regions_class_order")
def order_that_names_a_value_twice(folder: Path) -> None:
    declare(folder, labels={"background": 0, "whole": [1, 2], "organ": 2}, regions_class_order=[1, 1])


@bad("dataset.json", "'whole'", "no value")
def region_without_values(folder: Path) -> None:
    declare(folder, labels={"background": 0, "whole": [], "head": 1, "organ": 2}, regions_class_order=[1, 1, 2])


@bad("dataset.json", "'whole'", "background")
def region_with_the_background(folder: Path) -> None:
    declare(folder, labels={"background": 0, "whole": [0, 1, 2], "organ": 2}, regions_class_order=[1, 2])


@bad("dataset.json", "'whole'", "ignore")
def region_with_the_ignored(folder: Path) -> None:
    labels = {"background": 0, "whole": [1, 2, 3], "organ": 2, "ignore": 3}
    declare(folder, labels=labels, regions_class_order=[1, 2])


@bad("dataset.json", "file_ending", "missing")
def no_file_ending(folder: Path) -> None:
    declare(folder, file_ending=None)


@bad("dataset.json", "file_ending", "'.png'")
def file_ending_without_dot(folder: Path) -> None:
    declare(folder, file_ending="png")


@bad("dataset.json", "file_ending", ".gif")
def file_ending_that_nothing_reads(folder: Path) -> None:
    declare(folder, file_ending=".gif")


@bad("imagesTr", "file_ending", ".nii.gz")
def file_ending_of_other_files(folder: Path) -> None:
    declare(folder, file_ending=".nii.gz")


@bad("dataset.json", "'numTraining' is 9", "6", code=0)
def number_of_cases_wrong(folder: Path) -> None:
    declare(folder, numTraining=9)


@bad("dataset.json", "numTraining")
def number_of_cases_in_words(folder: Path) -> None:
    declare(folder, numTraining="six")


@bad("dataset.json", "task", "segmentation")
def task_that_is_none(folder: Path) -> None:
    declare(folder, task="regression of ages")


@bad("Tiff3DIO")
def reader_that_is_none(folder: Path) -> None:
    declare(folder, overwrite_image_reader_writer="Tiff3DIO")


@bad("dataset.json", "group_regex", "no regular expression")
def expression_that_is_none(folder: Path) -> None:
    declare(folder, group_regex="^(P[0-9+_")


@bad("dataset.json", "group_regex", "one group")
def expression_without_group(folder: Path) -> None:
    declare(folder, group_regex="^P[0-9]+_")


@bad("dataset.json", "group_regex", "P00_0")
def expression_that_does_not_fit(folder: Path) -> None:
    declare(folder, group_regex="^(Q[0-9]+)_")


@bad("dataset.json", "group_regex", "repeat")
def expression_that_takes_for_ever(folder: Path) -> None:
    declare(folder, group_regex="^((?:P*)*)$")


@bad("dataset.json", "'../../../escaped'")
def case_name_that_leaves_the_folder(folder: Path) -> None:
    _list(folder, first="../../../escaped")


@bad("dataset.json", "P00_0", "images")
def listed_case_without_images(folder: Path) -> None:
    _list(folder, images=[])


@bad("gone.png", "no such file")
def listed_image_that_is_gone(folder: Path) -> None:
    _list(folder, images=["imagesTr/gone.png"])


@bad("P00_0", "label map", "missing")
def listed_case_without_label_map(folder: Path) -> None:
    _list(folder, label=None)


@bad("one patient", "'P'")
def all_cases_of_one_patient(folder: Path) -> None:
    declare(folder, group_regex="^(P)[0-9]+_")


@bad("dataset.json", "head, Head differ only in case", code=0)
def two_classes_that_differ_in_a_capital(folder: Path) -> None:
    declare(folder, labels={"background": 0, "head": 1, "Head": 2})


@bad("dataset.json", "'=head' may be taken for a formula", code=0)
def a_class_that_is_a_formula(folder: Path) -> None:
    declare(folder, labels={"background": 0, "=head": 1, "b": 2})


# patients.csv


def patients(folder: Path, content: str | bytes) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    (folder / "patients.csv").write_bytes(data)


@bad("patients.csv", "'patient' is missing")
def patients_without_their_column(folder: Path) -> None:
    patients(folder, "case,name\n" + PATIENTS)


@bad("patients.csv, line 2", "cannot be seen", "U+200B")
def a_patient_with_a_letter_that_nobody_sees(folder: Path) -> None:
    patients(folder, "case,patient\n" + PATIENTS.replace(",", ",\u200b", 1))


@bad("patients.csv", "A0, a0 differ only in case", code=0)
def a_patient_written_in_two_ways(folder: Path) -> None:
    patients(folder, "case,patient\n" + PATIENTS.replace("a0", "A0", 1))


@bad("patients.csv", "pipe")
def a_pipe_in_the_place_of_the_patients(folder: Path) -> None:
    os.mkfifo(folder / "patients.csv")


@bad("dataset.json", "pipe")
def a_pipe_in_the_place_of_the_declaration(folder: Path) -> None:
    (folder / "dataset.json").unlink()
    os.mkfifo(folder / "dataset.json")


@bad("dataset.json", "'file_ending' is .PNG", "6 in imagesTr end in .png")
def an_ending_in_other_capitals(folder: Path) -> None:
    declare(folder, file_ending=".PNG")


@bad("spacings.csv", "QQ", code=0)
def a_pixel_size_of_no_case(folder: Path) -> None:
    (folder / "spacings.csv").write_text("case,spacing_mm\nQQ,0.1\n")


@bad("patients.csv", "empty")
def patients_in_an_empty_file(folder: Path) -> None:
    patients(folder, "")


@bad("patients.csv", "P02_1", code=0)
def patients_without_one_case(folder: Path) -> None:
    patients(folder, "case,patient\n" + PATIENTS.replace("P02_1,a2\n", ""))


@bad("patients.csv", "P77_0", code=0)
def patients_with_a_case_that_is_none(folder: Path) -> None:
    patients(folder, "case,patient\n" + PATIENTS + "P77_0,a9\n")


@bad("patients.csv", "P00_0", "a0", "a7")
def patients_with_a_case_of_two(folder: Path) -> None:
    patients(folder, "case,patient\n" + PATIENTS + "P00_0,a7\n")


@bad("patients.csv", "P00_0", "empty")
def patient_without_name(folder: Path) -> None:
    patients(folder, "case,patient\n" + PATIENTS.replace("P00_0,a0", "P00_0,"))


@bad("patients.csv", "line 8")
def patients_with_a_line_too_short(folder: Path) -> None:
    patients(folder, "case,patient\n" + PATIENTS + "P77_0\n")


@bad("patients.csv", "UTF-8")
def patients_in_latin_1(folder: Path) -> None:
    patients(folder, ("case,patient\n" + PATIENTS.replace("a0", "Ren\u00e9")).encode("latin-1"))


@bad("patients.csv", "UTF-8")
def patients_that_are_a_workbook(folder: Path) -> None:
    patients(folder, b"PK\x03\x04\x14\0\x06\0\x08\0\0\0!\0" + bytes(range(256)))


@bad("patients.csv", "folder")
def patients_that_are_a_folder(folder: Path) -> None:
    (folder / "patients.csv").mkdir()


@bad("patients.csv", "field")
def patients_in_quotes_that_never_end(folder: Path) -> None:
    patients(folder, 'case,patient\n"' + "x" * 200_000 + "\n" + PATIENTS)


@bad("patients.csv", "'case'", "twice")
def patients_with_a_column_twice(folder: Path) -> None:
    patients(folder, "case,case,patient\n" + "".join(f"{case},{case},a{case[2]}\n" for case in CASES))


# labelsTr.csv


def classes(folder: Path, content: str) -> None:
    (folder / "labelsTr.csv").write_text(content)


def class_lines(folder: Path) -> str:
    return (folder / "labelsTr.csv").read_text()


@bad("labelsTr.csv", "no such file", base="classes")
def classes_without_table(folder: Path) -> None:
    (folder / "labelsTr.csv").unlink()


@bad("labelsTr.csv", "'case' is missing", base="classes")
def classes_without_cases(folder: Path) -> None:
    classes(folder, class_lines(folder).replace("case,", "image,"))


@bad("P00_0", "no row", base="classes")
def image_without_class(folder: Path) -> None:
    classes(folder, class_lines(folder).replace("P00_0,odd\n", ""))


@bad("labelsTr.csv", "1, 1.0 differ only", code=0, base="classes")
def classes_as_whole_and_broken_numbers(folder: Path) -> None:
    classes(folder, "case,label\n" + "".join(f"{case},{'1.0' if n == 3 else n % 2}\n" for n, case in enumerate(CASES)))


@bad("labelsTr.csv", "'@odd' may be taken for a formula", code=0, base="classes")
def a_class_of_cases_that_is_a_formula(folder: Path) -> None:
    classes(folder, class_lines(folder).replace("odd", "@odd"))


@bad("labelsTr.csv", "'rare' has 2 cases of one patient", code=0, base="classes")
def a_class_of_one_patient(folder: Path) -> None:
    names = ["rare", "rare", "odd", "even", "odd", "even"]
    classes(folder, "case,label\n" + "".join(f"{case},{name}\n" for case, name in zip(CASES, names, strict=True)))


@bad("labelsTr", "nothing reads label maps", code=0, base="classes")
def classes_beside_label_maps(folder: Path) -> None:
    (folder / "labelsTr").mkdir()
    save(folder / "labelsTr" / "P00_0.png", discs(0)[1])


@bad("labelsTr.csv", "P77_0", code=0, base="classes")
def class_without_image(folder: Path) -> None:
    classes(folder, class_lines(folder) + "P77_0,odd\n")


@bad("P00_0", "empty", base="classes")
def class_without_name(folder: Path) -> None:
    classes(folder, class_lines(folder).replace("P00_0,odd", "P00_0,"))


@bad("labelsTr.csv", "P00_0", "odd", "even", base="classes")
def case_of_two_classes_in_two_lines(folder: Path) -> None:
    classes(folder, class_lines(folder) + "P00_0,even\n")


@bad("labelsTr.csv", "one class alone", base="classes")
def all_cases_of_one_class(folder: Path) -> None:
    classes(folder, class_lines(folder).replace("even", "odd"))


@bad("labelsTr.csv", "Odd", "odd", code=0, base="classes")
def classes_that_differ_in_case(folder: Path) -> None:
    classes(folder, class_lines(folder).replace("P00_0,odd", "P00_0,Odd"))


@bad("labelsTr.csv", "neither 0 nor 1", base="classes")
def columns_of_twos(folder: Path) -> None:
    classes(folder, "case,odd,even\n" + "".join(f"{case},2,0\n" for case in CASES))


@bad("labelsTr.csv", "line 8", base="classes")
def classes_with_a_line_too_short(folder: Path) -> None:
    classes(folder, class_lines(folder) + "P77_0\n")


@bad("labelsTr.csv", "folder", base="classes")
def classes_that_are_a_folder(folder: Path) -> None:
    (folder / "labelsTr.csv").unlink()
    (folder / "labelsTr.csv").mkdir()


@bad("labelsTr.csv", "UTF-8", base="classes")
def classes_in_utf_16(folder: Path) -> None:
    (folder / "labelsTr.csv").write_bytes(class_lines(folder).encode("utf-16-le"))


@bad("P00_0", "P00_1", "different classes", code=0, base="classes")
def the_same_image_with_two_classes(folder: Path) -> None:
    image(folder, "P00_1").write_bytes(image(folder).read_bytes())


@bad("rare", "1 case", code=0, base="classes")
def class_of_one_case(folder: Path) -> None:
    classes(folder, class_lines(folder).replace("P00_0,odd", "P00_0,rare"))


# splits_final.json


def splits(folder: Path, *folds: tuple[list[str], list[str]]) -> None:
    value = [{"train": train, "val": val} for train, val in folds]
    (folder / "splits_final.json").write_text(json.dumps(value))


@bad("splits_final.json", "P00")
def folds_that_share_a_patient(folder: Path) -> None:
    splits(folder, (CASES[1:], CASES[:1]))


@bad("splits_final.json", "P00_0")
def folds_that_share_a_case(folder: Path) -> None:
    splits(folder, (CASES[:4], [CASES[0], *CASES[4:]]))


@bad("splits_final.json", "P99_0")
def folds_with_a_case_that_is_none(folder: Path) -> None:
    splits(folder, ([*CASES[:4], "P99_0"], CASES[4:]))


@bad("splits_final.json", "val")
def fold_without_validation(folder: Path) -> None:
    splits(folder, (CASES, []))


@bad("splits_final.json", "list of folds")
def folds_that_are_no_list(folder: Path) -> None:
    (folder / "splits_final.json").write_text(json.dumps({"train": CASES[:4], "val": CASES[4:]}))


@bad("splits_final.json", "list of folds")
def folds_that_are_none(folder: Path) -> None:
    (folder / "splits_final.json").write_text("[]")


@bad("splits_final.json", "P00_0", "twice")
def fold_that_names_a_case_twice(folder: Path) -> None:
    splits(folder, ([*CASES[:4], CASES[0]], CASES[4:]))


@bad("splits_final.json", "P00_0", "several folds", code=0)
def folds_that_validate_one_case_twice(folder: Path) -> None:
    splits(folder, (CASES[2:], CASES[:2]), (CASES[2:], CASES[:2]))


@bad("splits_final.json", "not valid JSON")
def half_of_the_folds(folder: Path) -> None:
    splits(folder, (CASES[:4], CASES[4:]))
    cut(folder / "splits_final.json")


# lists of unlabelled images


@bad("nowhere", "no such folder", base="unlabelled")
def images_that_lie_nowhere(folder: Path) -> None:
    declare(folder, images="nowhere")


@bad("list.txt", "text", base="unlabelled")
def list_in_utf_16(folder: Path) -> None:
    (folder / "list.txt").write_bytes("imagesTr/P00_0.png\n".encode("utf-16"))
    declare(folder, images="list.txt")


@bad("table.csv", "'path' is missing", base="unlabelled")
def table_without_paths(folder: Path) -> None:
    (folder / "table.csv").write_text("where\nimagesTr/P00_0.png\n")
    declare(folder, images="table.csv")


@bad("P99_9", "no such file", code=5, base="unlabelled")
def list_with_a_file_that_is_gone(folder: Path) -> None:
    (folder / "list.txt").write_text("\n".join(f"imagesTr/{case}.png" for case in [*CASES, "P99_9"]))
    declare(folder, images="list.txt")


def _list(folder: Path, first: str = CASES[0], **changes: object) -> None:
    """List the cases in dataset.json, the first one changed."""
    entries = {
        (first if case == CASES[0] else case): {
            "images": [f"imagesTr/{case}_0000.png"],
            "label": f"labelsTr/{case}.png",
        }
        for case in CASES
    }
    entries[first] |= changes
    declare(folder, dataset=entries, group_regex=None)


def more_images(folder: Path, count: int) -> None:
    """Add unlabelled images."""
    for number in range(count):
        save(folder / "imagesTr" / f"more{number}.png", discs(1000 + number)[0])
