import json
from typing import ClassVar

import pytest

from fmseg.errors import BadRecord
from fmseg.records.record import Part, Record


class Inner(Part):
    size: tuple[int, int]


class Outer(Record):
    VERSION: ClassVar[int] = 3
    MIGRATIONS: ClassVar[dict] = {1: lambda v: v | {"rate": 0.5}, 2: lambda v: v | {"name": v["name"].upper()}}

    name: str
    rate: float
    inner: Inner


RECORD = Outer(name="A", rate=0.5, inner=Inner(size=(2, 3)))


def test_save_and_load_round_trip(tmp_path):
    RECORD.save(tmp_path / "r.json")
    assert Outer.load(tmp_path / "r.json") == RECORD
    assert next(iter(json.loads((tmp_path / "r.json").read_text()))) == "version"


def test_an_old_version_migrates(tmp_path):
    path = tmp_path / "r.json"
    path.write_text('{"version": 1, "name": "a", "inner": {"size": [2, 3]}}')
    assert Outer.load(path) == RECORD


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 4}, "newer fmseg"),
        ({"rate": "fast"}, "'rate' is 'fast'"),
        ({"nam": 1}, "No key is called 'nam'. Did you mean 'name'"),
        ({"inner": {}}, "'inner.size' is missing"),
        ({"version": None}, "no 'version'"),
    ],
)
def test_a_wrong_record_names_file_and_key(tmp_path, change, message):
    path = tmp_path / "r.json"
    RECORD.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BadRecord, match=message) as error:
        Outer.load(path)
    assert str(path) in str(error.value)


def test_evolve_validates_and_leaves_the_original():
    assert RECORD.evolve(rate=1.0).rate == 1.0
    assert RECORD.rate == 0.5
    assert RECORD.evolve(inner=Inner(size=(4, 5))).inner.size == (4, 5)
    with pytest.raises(BadRecord):
        RECORD.evolve(rate="1")


def test_the_digest_depends_on_the_content_alone():
    assert RECORD.digest() == RECORD.evolve().digest() != RECORD.evolve(rate=0.1).digest()
