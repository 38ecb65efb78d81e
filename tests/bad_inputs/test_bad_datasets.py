"""Every bad dataset is answered as it must be: by the typed command, in one message, and nothing is harmed."""

import json
import logging
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from bad_images import IMAGES
from bad_labels import LABEL_MAPS
from bad_records import RECORDS
from harmless import HARMLESS
from sound import BASES, NAME, Bad

from fmseg.cli import main
from fmseg.files import sha256_file

BAD = [*IMAGES, *LABEL_MAPS, *RECORDS]
#: seconds after which a command is taken to hang
PATIENCE_S = 20


@pytest.fixture(scope="session")
def bases(tmp_path_factory) -> dict[str, Path]:
    """Write each sound dataset once."""
    folders = {}
    for name, write in BASES.items():
        folders[name] = tmp_path_factory.mktemp(name)
        write(folders[name])
    return folders


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """End a test that hangs."""

    def stop(*_: object) -> None:
        raise RuntimeError(f"it takes more than {PATIENCE_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(PATIENCE_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def quiet_afterwards() -> Iterator[None]:
    """Take away the log's handler, which writes to what was captured."""
    yield
    logging.getLogger("fmseg").handlers.clear()


def placed(bad: Bad, bases: dict[str, Path], root: Path) -> Path:
    """Write a bad dataset into a workspace and return its folder."""
    folder = root / "fmseg_raw" / NAME
    shutil.copytree(bases[bad.base], folder)
    bad.spoil(folder)
    return folder


def typed(capsys, root: Path, *arguments: str) -> tuple[int, str, str]:
    """Type a command in this process; return exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as left:
        main(["--root", str(root), *arguments])
    out, err = capsys.readouterr()
    for text in (out, err):
        assert "Traceback" not in text and "fault of fmseg" not in text, text
        assert all(letter.isprintable() or letter == "\n" for letter in text), repr(text)
    return int(left.value.code or 0), out, err


def content(folder: Path) -> dict[str, str]:
    """Return what lies in a folder: name -> hash."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        found[name] = sha256_file(path) if path.is_file() else "other"
    return found


def squeezed(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_a_bad_dataset_is_told(bad: Bad, bases, tmp_path, capsys):
    folder = placed(bad, bases, tmp_path)
    before = content(folder)
    code, out, err = typed(capsys, tmp_path, "doctor", "-d", "501", "-np", "0", "--json", "-q")
    assert code == (bad.code if bad.code != 5 else 0), out + err
    findings = json.loads(out)
    told = [squeezed(f"{each['where']}: {each['problem']}. {each['why']} {each['mend']}") for each in findings]
    meant = [each for each, line in zip(findings, told, strict=True) if all(word in line for word in bad.words)]
    assert meant, told
    assert any(each["severity"] == "error" for each in findings) == (code == 3)
    assert all(each["problem"] and each["why"] and each["mend"] for each in findings)
    code, out, err = typed(capsys, tmp_path, "plan_and_preprocess", "-d", "501", "-np", "0")
    assert code == bad.code, out + err
    # notes are for those who ask the doctor
    assert all(word in squeezed(err) for word in bad.words) or {each["severity"] for each in meant} == {"note"}, err
    if code == 3:
        assert not (tmp_path / "fmseg_preprocessed" / NAME / "plans.json").exists()
    assert content(folder) == before, "raw data is never written to"
    assert {path.name for path in tmp_path.iterdir()} <= {"fmseg_raw", "fmseg_preprocessed", "fmseg_results"}


@pytest.mark.parametrize("case", HARMLESS, ids=lambda case: case.name)
def test_a_harmless_dataset_passes(case: Bad, bases, tmp_path, capsys):
    folder = placed(case, bases, tmp_path)
    before = content(folder)
    code, out, err = typed(capsys, tmp_path, "doctor", "-d", "501", "-np", "0")
    assert code == 0, out + err
    code, out, err = typed(capsys, tmp_path, "plan_and_preprocess", "-d", "501", "-np", "0")
    assert code == 0, out + err
    assert "warning" not in err
    assert content(folder) == before


def test_there_are_enough():
    assert len(BAD) >= 80
    names = [each.name for each in (*BAD, *HARMLESS)]
    assert len(names) == len(set(names))
