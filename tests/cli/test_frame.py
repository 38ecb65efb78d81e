import json
import os
import resource
import subprocess
import sys

import pytest

from fmseg.cli import main
from fmseg.cli.arguments import ALL, complete_dataset, complete_foundation, parse_duration, parse_fold, parse_settings
from fmseg.errors import UsageError

HEAVY = (
    "pydantic",
    "jinja2",
    "starlette",
    "PIL",
    "pydicom",
    "torch",
    "timm",
    "monai",
    "numpy",
    "cv2",
    "sklearn",
    "matplotlib",
    "SimpleITK",
    "nibabel",
    "scipy",
)


def run(capsys, *arguments):
    """Return exit code, stdout and stderr of one command."""
    with pytest.raises(SystemExit) as left:
        main(arguments)
    out, err = capsys.readouterr()
    return left.value.code, out, err


@pytest.fixture
def workspace(tmp_path):
    for name in ("Dataset501_Heads", "Dataset502_Planes"):
        (tmp_path / "fmseg_raw" / name).mkdir(parents=True)
    return tmp_path


def test_help_imports_nothing_heavy():
    code = "import sys\nfrom fmseg.cli import main\ntry:\n main(['--help'])\nexcept SystemExit: pass\n"
    code += f"print([name for name in {HEAVY!r} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "plan_and_preprocess" in output
    assert output.strip().endswith("[]")


def test_help_answers_in_half_a_second():
    def seconds() -> float:  # of the processor: other processes on the machine do not count
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "fmseg", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.5


def test_commands_take_underscores_and_dashes(capsys, workspace):
    for name, option in (("plan_and_preprocess", "--dry-run"), ("plan-and-preprocess", "--dry_run")):
        code, out, _ = run(capsys, name, "-d", "501", option, "--root", str(workspace))
        assert code == 0
        assert "Dataset501_Heads" in out


def test_several_datasets_are_typed_as_in_nnunet(capsys, workspace):
    code, out, _ = run(capsys, "fingerprint", "-d", "501", "502", "--dry-run", "--json", "--root", str(workspace))
    assert code == 0
    assert len(json.loads(out)["reads"]) == 2


def test_json_errors_are_one_object_on_stdout_and_one_line_on_stderr(capsys, workspace):
    code, out, err = run(capsys, "fingerprint", "-d", "999", "--json", "--root", str(workspace))
    assert code == json.loads(out)["exit_code"] == 2
    assert "999" in json.loads(out)["error"]
    assert "Traceback" not in err
    assert err.startswith("error:")


def test_the_root_may_stand_before_or_after_the_command(capsys, workspace):
    first = run(capsys, "--root", str(workspace), "list")
    assert first == run(capsys, "list", "--root", str(workspace))
    assert "Dataset501_Heads" in first[1]


def test_an_unknown_list_is_answered_with_the_nearest(capsys, workspace):
    code, _, err = run(capsys, "list", "recipe", "--root", str(workspace))
    assert code == 2
    assert "Did you mean 'recipes'" in err


def test_an_unknown_command_is_answered_with_the_nearest(capsys):
    code, _, err = run(capsys, "fingerprnt", "-d", "501")
    assert code == 2
    assert "Did you mean 'fingerprint'" in err


def test_alone_it_shows_where_one_stands_and_the_next_command(capsys, workspace):
    code, out, _ = run(capsys, "--root", str(workspace))
    assert code == 0
    assert "2 datasets, no foundation checkpoint yet" in out and "Dataset502_Planes" in out
    assert "Next: fmseg plan_and_preprocess -d 501" in out and "fmseg --help" in out


def test_the_next_command_follows_what_is_done(capsys, tmp_path):
    def next_command():
        code, out, _ = run(capsys, "--root", str(tmp_path))
        assert code == 0
        return next(line for line in out.splitlines() if line.startswith("Next: ")).removeprefix("Next: fmseg ")

    assert next_command() == "demo"
    results = tmp_path / "fmseg_results" / "Dataset501_Heads"
    prepared = tmp_path / "fmseg_preprocessed" / "Dataset501_Heads"
    for file, content, command in (
        (tmp_path / "fmseg_raw" / "Dataset501_Heads" / "dataset.json", "{}", "plan_and_preprocess -d 501"),
        (prepared / "plans.json", '{"task": "segmentation"}', "plan_and_preprocess -d 501"),
        (prepared / "fmsegPlans_images" / "store.json", "{}", "pretrain"),
        (tmp_path / "fmseg_results" / "foundation" / "ultrasound" / "d501" / "foundation.json", "{}", "train 501"),
        (results / "upernet__fmsegPlans" / "fold_0" / "finished.json", "{}", "train 501"),
        (results / "selection.json", "{}", "report 501"),
        (results / "report.html", "", "predict -i in -o out"),
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        assert next_command() == command


def test_shells_complete_datasets_and_checkpoints(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    (workspace / "fmseg_results" / "foundation" / "ultrasound" / "d501").mkdir(parents=True)
    (workspace / "fmseg_results" / "foundation" / "ultrasound" / "d501" / "foundation.json").write_text("{}")
    assert complete_dataset("50") == ["501", "502"]
    assert complete_dataset("Dataset502") == ["Dataset502_Planes"]
    assert complete_foundation("d5") == ["d501"] and complete_foundation("x") == []
    (workspace / "fmseg.toml").write_text("no toml")
    assert complete_dataset("5") == complete_foundation("d") == []


def test_without_a_terminal_nothing_is_coloured(workspace):
    command = [sys.executable, "-m", "fmseg", "--root", str(workspace), "list"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"FORCE_COLOR": ""})
    assert "\nDataset501_Heads " in said.stdout and "\x1b" not in said.stdout + said.stderr


@pytest.mark.parametrize("text", ["0", "fold0", "fold_0", "FOLD0"])
def test_folds(text):
    assert parse_fold(text) == 0


def test_fold_all():
    assert parse_fold("all") == ALL
    with pytest.raises(UsageError, match="fold0 or all"):
        parse_fold("first")


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("20m", 1200), ("1.5h", 5400), ("2d", 172800)])
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["20", "-5m", "soon", "0h"])
def test_wrong_durations_are_refused(text):
    with pytest.raises(UsageError, match="20m"):
        parse_duration(text)


def test_settings():
    assert parse_settings(["a=1", "b = x=y"]) == {"a": "1", "b": "x=y"}
    with pytest.raises(UsageError, match="key=value"):
        parse_settings(["a"])
