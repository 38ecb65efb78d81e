"""export, import, predict -m and export_predictions as they are typed: output, exit codes, messages."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmseg.cli.frame import type_command
from fmseg.workspace import Workspace

sys.path.insert(0, str(Path(__file__).parents[1] / "inference"))
import tiny_run

NAME = "Dataset501_Discs"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A workspace with trained models; the current folder, with images, is another one."""
    for name in ("fmseg_raw", "fmseg_preprocessed", "fmseg_results"):
        monkeypatch.delenv(name, raising=False)
    place = Workspace.find(tmp_path)
    for fold in range(2):
        run = place.results_of(NAME) / "linear__plans" / f"fold_{fold}"
        tiny_run.write_run(run, tiny_run.config(fold=fold), seed=fold)
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "in").mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    Image.fromarray(tiny_run.disc(np.random.default_rng(0), (40, 50))[0]).save("in/a.png")
    return tmp_path


def test_a_model_goes_from_one_workspace_to_another(home, capsys):
    assert type_command("--root", str(home), "export", "501", "--licence", "CC0", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["path"], told["networks"], told["licence"]) == (f"{NAME}.fmseg", 2, "CC0")
    assert type_command("predict", "-m", told["path"], "-i", "in", "-o", "out") == 0
    assert type_command("import", told["path"], "--as", "601") == 0
    assert "fmseg predict -d 601" in capsys.readouterr().out
    assert type_command("predict", "-d", "601", "-i", "in", "-o", "again") == 0
    assert Path("out/a.png").read_bytes() == Path("again/a.png").read_bytes()
    assert type_command("export_predictions", "-i", "out", "--to", "png", "-o", "seen") == 0
    assert (np.asarray(Image.open("seen/a.png")) == np.asarray(Image.open("out/a.png"))).all()


def test_what_goes_wrong_is_one_message_with_its_code(home, capsys):
    assert type_command("--root", str(home), "export", "501", "-o", "m.fmseg") == 0
    assert type_command("--root", str(home), "export", "501", "-o", "m.fmseg") == 2
    assert type_command("export", "501") == 2
    Path("bad.fmseg").write_bytes(Path("m.fmseg").read_bytes()[:-100])
    capsys.readouterr()
    assert type_command("import", "bad.fmseg") == 3
    assert type_command("predict", "-m", "bad.fmseg", "-i", "in", "-o", "out") == 3
    assert "Traceback" not in capsys.readouterr().err
    assert type_command("import", "nowhere.fmseg") == 3
    assert type_command("predict", "-m", "m.fmseg", "-d", "501", "-i", "in", "-o", "out") == 2
    assert type_command("export", "501", "--foundation", "one") == 2
    assert type_command("--root", str(home), "import", "m.fmseg") == 2
