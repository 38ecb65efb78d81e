"""Sources of unlabelled images: folders, lists and tables."""

import os
import random

import pytest

from fmseg.errors import BadData
from fmseg.files import natural_key
from fmseg.records.cases import CaseTable, Chosen, compact_key, list_images, unique_cases
from fmseg.records.sources import list_cases, listed_modalities, listed_patients

NAMES = ["p2/b.png", "p10/a.png", "p10/01.png", "p10/1.png", "p10/1a.png", "p 1/x.jpg", "P1/Ümlaut 3.tif", "z.nii.gz"]


def touch(root, names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_compact_keys_order_as_natural_keys_do():
    rng = random.Random(0)
    texts = ["".join(rng.choices("ab0019_/. ü", k=rng.randint(0, 9))) for _ in range(3000)]
    assert sorted(texts, key=lambda text: (compact_key(text), text)) == sorted(
        texts, key=lambda text: (natural_key(text), text)
    )


def test_the_order_does_not_depend_on_that_of_the_file_system(tmp_path, monkeypatch):
    touch(tmp_path, [*NAMES, "notes.txt", ".hidden/c.png", "imagesTs/t.png", "labelsTr/l.png"])
    (tmp_path / "link").symlink_to(tmp_path / "p10")
    expected = sorted(sorted(NAMES), key=natural_key)
    assert list_images(tmp_path) == expected
    scandir = os.scandir

    class Shuffled:
        def __init__(self, path):
            self.entries = list(scandir(path))
            random.shuffle(self.entries)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *error):
            return None

    monkeypatch.setattr(os, "scandir", Shuffled)
    for _ in range(5):
        assert list_images(tmp_path) == expected


def test_a_folder_that_cannot_be_listed_and_a_name_that_is_no_text_are_told(tmp_path, caplog, monkeypatch):
    touch(tmp_path, ["a.png", "shut/b.png"])
    with open(os.fsencode(tmp_path) + b"/\xff.png", "wb"):
        pass
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert list_images(tmp_path) == ["a.png"]
    assert "shut is left out: it cannot be listed (Permission denied)" in caplog.text
    assert "is not valid UTF-8" in caplog.text


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_gives_paths_patients_and_modalities(tmp_path, delimiter):
    touch(tmp_path, NAMES[:3])
    rows = [("Modality", "path", "patient"), ("US", "p2/b.png", "Eve"), ("mr", str(tmp_path / "p10/a.png"), "Ann")]
    rows += [("b-mode", "p10/01.png", "")]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(delimiter.join(row) for row in rows))
    assert listed_modalities(table) == ("mri", "ultrasound")
    assert [case.name for case in list_cases(table, "ultrasound")] == ["p2/b", "p10/01"]
    (case,) = list_cases(table, "mri")
    assert case.name == "p10/a"
    assert case.images[0].exists()
    patients = listed_patients(table, "ultrasound")
    assert patients["p2/b"] == "Eve"
    assert "p10/01" not in patients
    assert "p10/a" not in patients


def test_a_parquet_table_says_what_the_same_csv_says(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"path": ["a.png", "b.png"], "patient": [7, None], "modality": ["US", "CT"], "other": [1, 2]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "table.parquet")
    assert listed_modalities(tmp_path / "table.parquet") == ("ct", "ultrasound")
    assert [case.name for case in list_cases(tmp_path / "table.parquet", "ct")] == ["b"]
    assert listed_patients(tmp_path / "table.parquet", "ultrasound")["a"] == "7"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("picture,patient\na.png,1\n", "the column 'path' is missing"),
        ("path,patient\n,1\n", "line 2: there is no path"),
        ("path,modality\na.png,us\nb.png,\n", "some rows have no modality"),
    ],
)
def test_tables_that_say_too_little_are_named(tmp_path, text, message):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(BadData, match=message):
        listed_modalities(tmp_path / "table.csv")
        list_cases(tmp_path / "table.csv", "ultrasound")


def test_only_the_first_case_of_a_name_counts(tmp_path):
    touch(tmp_path, ["a.jpg", "a.png", "b.png"])
    cases = list_cases(tmp_path, "ultrasound")
    assert [case.images[0].name for case in unique_cases(cases)] == ["a.jpg", "b.png"]
    assert isinstance(unique_cases(cases), Chosen)


def test_a_table_of_names_gives_what_was_put_in():
    table = CaseTable((f"case_{number}", f"patient_{number // 3}") for number in range(1000))
    assert all(table[f"case_{number}"] == f"patient_{number // 3}" for number in range(1000))
    assert len(table) == 1000
    with pytest.raises(KeyError):
        table["case_1000"]
