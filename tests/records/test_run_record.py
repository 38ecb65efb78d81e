import sys

from fmseg.records.run import Provenance


def test_the_command_is_noted_without_folders(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    typed = ["fmseg", "--root", "/home/jane/study", f"--images={tmp_path}/in", "-o", "out", "train", "501"]
    monkeypatch.setattr(sys, "argv", typed)
    assert Provenance.here().command == "fmseg --root study --images=in -o out train 501"
