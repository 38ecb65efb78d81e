import csv

from tiny_run import SCHEME, TWO

from fmseg.inference.prediction_table import CaseTable, Row, label_map_columns


def table_of(path, scheme=SCHEME):
    return CaseTable(path, label_map_columns(scheme))


def row(case, note=""):
    return Row(case, f"{case}.png", 0.98765, 0.0, (0.25,), note)


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_table_reads_back_whatever_the_names(tmp_path):
    table = table_of(tmp_path / "report.csv")
    table.tidy()
    names = ['a,b "c"', "uml\u00e4ut", "two\nlines", "esc\x1b[31m", "10", "9"]
    for name in names:
        table.add(row(name, "first\nsecond").cells(1))
    table.tidy()
    found = read(tmp_path / "report.csv")
    assert [each["case"] for each in found][:2] == ["9", "10"]
    assert {each["case"] for each in found} == {'a,b "c"', "uml\u00e4ut", "two\\nlines", "esc\\x1b[31m", "10", "9"}
    assert all(each["note"] == "first second" and each["share_disc"] == "0.25" for each in found)


def test_an_interrupted_table_goes_on_without_its_torn_line(tmp_path):
    path = tmp_path / "report.csv"
    first = table_of(path)
    first.tidy()
    first.add(row("a").cells(1))
    first.add(row("b").cells(1))
    path.write_bytes(path.read_bytes()[:-4])
    second = table_of(path)
    second.resume()
    assert second.done("file") == {"a.png"}
    second.add(row("b").cells(1))
    second.tidy()
    assert [each["case"] for each in read(path)] == ["a", "b"]


def test_a_case_done_again_replaces_its_line_and_a_skipped_one_is_not_done(tmp_path):
    table = table_of(tmp_path / "report.csv")
    table.add(Row("a", "", None, None, (), "skipped: damaged").cells(1))
    assert table.done("file") == set()
    table.add(row("a").cells(1))
    table.tidy()
    assert [each["file"] for each in read(tmp_path / "report.csv")] == ["a.png"]


def test_a_table_of_other_classes_is_not_taken_over(tmp_path):
    table = table_of(tmp_path / "report.csv")
    table.tidy()
    table.add(row("a").cells(1))
    other = table_of(tmp_path / "report.csv", TWO)
    other.resume()
    assert other.done("file") == set()
