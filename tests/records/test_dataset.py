import json

import pytest

from fmseg.errors import BadData, BadRecord
from fmseg.records.dataset import Dataset, group_channels

BASE = {"channel_names": {"0": "ultrasound"}, "labels": {"background": 0, "head": 1}, "file_ending": ".png"}


def make(tmp_path, **changes):
    folder = tmp_path / "Dataset501_Heads"
    (folder / "imagesTr").mkdir(parents=True, exist_ok=True)
    (folder / "labelsTr").mkdir(exist_ok=True)
    value = {key: entry for key, entry in (BASE | changes).items() if entry is not None}
    (folder / "dataset.json").write_text(json.dumps(value))
    return folder


def test_a_folder_without_dataset_json_says_what_it_must_hold(tmp_path):
    with pytest.raises(BadRecord, match=r"dataset\.json: there is no such file.*channel_names"):
        Dataset.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {"head": 1}}, '"background": 0'),
        ({"labels": {"background": 0, "head": 2}}, r"consecutive.*\{2: 1\}"),
        ({"labels": {"background": 0, "head": 1, "ignore": 5}}, "'ignore' must be the highest value, 2"),
        ({"labels": {"background": 0, "whole": [1, 2], "core": [2]}}, "regions_class_order"),
        ({"channel_names": {"1": "us"}}, "channel_names"),
        ({"file_ending": None}, "file_ending"),
        ({"task": "detection"}, "task"),
        ({"group_regex": "P[0-9]+"}, "one group"),
        ({"group_regex": "(P", "task": "unlabelled"}, "no regular expression"),
    ],
)
def test_each_wrong_declaration_is_named(tmp_path, changes, message):
    with pytest.raises(BadRecord, match=message):
        Dataset.load(make(tmp_path, **changes))


def test_regions_are_read_as_nnunet_writes_them(tmp_path):
    labels = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
    scheme = Dataset.load(make(tmp_path, labels=labels, regions_class_order=[1, 2])).labels
    assert scheme.names == ("whole", "core")
    assert scheme.values == ((1, 2), (2,))
    assert (scheme.painted, scheme.ignore, scheme.num_outputs) == ((1, 2), 3, 2)
    assert scheme.declared == (0, 1, 2, 3)


def test_cases_channels_and_orphans(tmp_path):
    folder = make(tmp_path, channel_names={"0": "a", "1": "b"})
    for name in ("case_2_0000.png", "case_2_0001.png", "case_10_0000.png", "case_10_0001.png", ".DS_Store"):
        (folder / "imagesTr" / name).touch()
    for name in ("case_2.png", "lost.png"):
        (folder / "labelsTr" / name).touch()
    dataset = Dataset.load(folder)
    cases = dataset.training_cases()
    assert [case.name for case in cases] == ["case_2", "case_10"]
    assert [path.name for path in cases[0].images] == ["case_2_0000.png", "case_2_0001.png"]
    assert cases[0].label is not None
    assert cases[1].label is None
    assert [path.name for path in dataset.orphan_labels()] == ["lost.png"]


def test_the_dataset_key_lets_files_lie_anywhere(tmp_path):
    folder = make(tmp_path, dataset={"x": {"images": ["../a.png"], "label": "../b.png"}})
    (case,) = Dataset.load(folder).training_cases()
    assert case.images[0].name == "a.png"
    assert case.label.name == "b.png"


def test_an_unlabelled_dataset_reads_a_tree_or_a_list_in_natural_order(tmp_path):
    for name in ("p10/a.png", "p2/b.jpg", "p2/notes.txt", ".hidden/c.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).touch()
    tree = Dataset.load(make(tmp_path, task="unlabelled", images=str(tmp_path / "images"), labels=None))
    assert [case.name for case in tree.training_cases()] == ["p2/b", "p10/a"]
    (tmp_path / "list.txt").write_text("images/p10/a.png\n\nimages/p2/b.jpg\n")
    listed = Dataset.load(make(tmp_path, task="unlabelled", images=str(tmp_path / "list.txt"), labels=None))
    assert [case.images[0].name for case in listed.training_cases()] == ["a.png", "b.jpg"]


def test_a_table_without_its_column_is_named(tmp_path):
    folder = make(tmp_path)
    (folder / "patients.csv").write_text("case,person\na,b\n")
    with pytest.raises(BadData, match="column 'patient' is missing"):
        Dataset.load(folder).patients_of_cases()


@pytest.mark.parametrize(
    ("declared", "modality"), [("US", "ultrasound"), ("Ultrasound", "ultrasound"), ("MR", "mri"), ("CT", "ct")]
)
def test_the_modality_comes_from_the_first_channel(tmp_path, declared, modality):
    assert Dataset.load(make(tmp_path, channel_names={"0": declared})).modality == modality


def test_a_name_without_channel_suffix_is_a_case(tmp_path):
    assert list(group_channels([tmp_path / "a.png", tmp_path / "b_0000.png"], ".png")) == ["a", "b"]


def test_a_label_map_may_have_another_ending_but_that_of_the_images_comes_first(tmp_path):
    for name in ("imagesTr/a.dcm", "imagesTr/b.dcm", "labelsTr/a.png", "labelsTr/b.png", "labelsTr/b.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    declaration = {"channel_names": {"0": "ultrasound"}, "labels": {"background": 0, "head": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps(declaration | {"file_ending": ".dcm"}))
    first = Dataset.load(tmp_path).training_cases()[0]
    assert (first.images[0].name, first.label.name) == ("a.dcm", "a.png")
    (tmp_path / "labelsTr" / "a.dcm").touch()
    (tmp_path / "labelsTr" / "c.png").touch()
    dataset = Dataset.load(tmp_path)
    assert dataset.training_cases()[0].label.name == "a.dcm"
    assert [path.name for path in dataset.orphan_labels()] == ["c.png"]
