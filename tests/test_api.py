"""fmseg in Python: typed, lazy, and the same answers as the commands."""

import doctest
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fmseg
from fmseg.errors import BadData, UnknownName, UsageError
from fmseg.networks.vit import ViT
from fmseg.networks.weights import load_backbone, save_backbone
from fmseg.records.foundation import CARD, Foundation
from fmseg.reporting.model_card import model_card
from fmseg.stages.export import export_foundation, export_models
from fmseg.workspace import Workspace

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "inference"))
import tiny_run  # noqa: E402  trained runs

HEAVY = ("torch", "timm", "monai", "SimpleITK", "sklearn", "matplotlib", "cv2", "scipy", "pydicom")
NAME = "Dataset501_Discs"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A workspace, the current folder, with trained models, a checkpoint and new images."""
    for name in ("fmseg_raw", "fmseg_preprocessed", "fmseg_results"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    place = Workspace.find(tmp_path)
    for fold in range(2):
        tiny_run.write_run(
            place.results_of(NAME) / "linear__plans" / f"fold_{fold}", tiny_run.config(fold=fold), seed=fold
        )
    folder = place.foundation("ultrasound", "abdomen")
    tiny_run.write_foundation(folder, "abdomen", [])
    digest = save_backbone(ViT(tiny_run.ARCHITECTURE), folder)
    Foundation.load(folder / CARD).evolve(weights_sha256=digest).save(folder / CARD)
    (tmp_path / "new_images").mkdir()
    for index in range(2):
        image, _ = tiny_run.disc(np.random.default_rng(index), (40, 50))
        Image.fromarray(image).save(tmp_path / "new_images" / f"scan_{index + 1}.png")
    return place


def test_importing_fmseg_imports_nothing_heavy():
    code = (
        "import sys, fmseg; fmseg.train, fmseg.Predictor, fmseg.load_foundation; from fmseg import Segmentation\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], 'train' in dir(fmseg))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert told.strip() == "[] True"
    with pytest.raises(AttributeError, match="trian"):
        fmseg.trian  # noqa: B018


def test_every_name_that_is_promised_is_there():
    assert all(getattr(fmseg, name) is not None for name in fmseg.__all__)


def test_arrays_files_folders_and_bundles_get_one_answer(home, tmp_path):
    report = fmseg.predict("new_images", "predictions")
    assert report.num_predicted == 2
    wanted = np.asarray(Image.open("predictions/scan_1.png"))
    path = export_models(home, None, tmp_path / "discs.fmseg").path
    for predictor in (fmseg.Predictor.from_workspace(501), fmseg.Predictor.from_bundle(path)):
        assert predictor.name == NAME
        image = np.asarray(Image.open("new_images/scan_1.png"))
        for given in (image, np.stack([image] * 3, axis=-1), "new_images/scan_1.png", Path("new_images/scan_1.png")):
            answer = predictor.predict(given)
            assert isinstance(answer, fmseg.Segmentation)
            np.testing.assert_array_equal(answer.labels, wanted)
            assert answer.names == {1: "disc"} and 0 < answer.confidence <= 1
        volume = predictor.predict(np.stack([image, image[::-1]])[None])
        assert volume.labels.shape == (2, *image.shape)
        np.testing.assert_array_equal(volume.labels[0], wanted)
    assert fmseg.predict("new_images", "again", model=path).num_predicted == 2
    assert Path("again/scan_2.png").read_bytes() == Path("predictions/scan_2.png").read_bytes()


def test_classes_of_whole_images(tmp_path):
    place = Workspace.find(tmp_path)
    tiny_run.write_run(place.results_of(NAME) / "finetune__plans" / "fold_0", tiny_run.class_config())
    answer = fmseg.Predictor.from_workspace(root=tmp_path).predict(np.zeros((40, 40), np.uint8))
    assert isinstance(answer, fmseg.Classification) and answer.unlike == ""
    assert set(answer.probabilities) == {"dark", "bright"} and sum(answer.probabilities.values()) == pytest.approx(1)
    assert answer.probabilities[answer.classes[0]] == max(answer.probabilities.values())


def test_models_in_mm_want_the_pixel_size_of_arrays_and_of_files_without_one(tmp_path):
    place, run = Workspace.find(tmp_path), tiny_run.class_config()
    in_mm = run.plans.preprocessing.evolve(size_mode="spacing", spacing_mm=(0.5, 0.5))
    run = run.evolve(plans=run.plans.evolve(preprocessing=in_mm.model_dump()).model_dump(mode="json"))
    tiny_run.write_run(place.results_of(NAME) / "finetune__plans" / "fold_0", run)
    predictor, pixels = fmseg.Predictor.from_workspace(root=tmp_path), np.zeros((40, 40), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "scan.png")
    answers = []
    for image in (pixels, tmp_path / "scan.png"):
        with pytest.raises(BadData, match="spacing_mm="):
            predictor.predict(image)
        answers.append(predictor.predict(image, spacing_mm=(0.5, 0.5)))
    assert answers[0] == answers[1]


def test_what_does_not_fit_is_told(home):
    predictor = fmseg.Predictor.from_workspace()
    with pytest.raises(BadData, match=r"give \(Y, X\)"):
        predictor.predict(np.zeros((3, 40, 40), np.uint8))
    with pytest.raises(BadData, match="8 bits"):
        predictor.predict(np.zeros((40, 40), np.float32))
    with pytest.raises(BadData, match="no such file"):
        predictor.predict("nowhere.png")
    with pytest.raises(UsageError, match="spacing_mm"):
        predictor.predict(np.zeros((40, 40), np.uint8), spacing_mm=(1, 1, 1, 1))
    with pytest.raises(UnknownName, match="502"):
        fmseg.train(502)
    with pytest.raises(UsageError, match="Which dataset"):
        fmseg.plan_and_preprocess()
    with pytest.raises(UnknownName, match="Did you mean 'abdomen'"):
        fmseg.load_foundation("abdome")


def test_a_checkpoint_is_the_same_by_name_folder_and_file(home, tmp_path):
    folder = home.foundation("ultrasound", "abdomen")
    path = export_foundation(home, "abdomen", tmp_path / "abdomen.fmseg").path
    image = torch.randn(1, 1, 32, 32)
    wanted = load_backbone(folder)[0](image)
    for given in ("abdomen", folder, path, str(path)):
        torch.testing.assert_close(fmseg.load_foundation(given).forward_features(image), wanted)
    with pytest.raises(UsageError, match=r"Predictor\.from_bundle"):
        fmseg.load_foundation(export_models(home, None, tmp_path / "discs.fmseg").path)


def snippets():
    """Return the code blocks of the page on Python."""
    text = (ROOT / "docs" / "how-to" / "python.md").read_text()
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_page_on_python_runs_with_models_that_are_there(home, tmp_path):
    export_models(home, None, tmp_path / "heads.fmseg")
    namespace: dict[str, object] = {}
    for snippet in snippets()[1:]:
        exec(compile(snippet, "python.md", "exec"), namespace)
    assert (tmp_path / "predictions" / "scan_1.png").exists()


def test_examples_of_docstrings_run(home, tmp_path):
    export_models(home, None, tmp_path / "heads.fmseg")
    for thing in (fmseg.Predictor, fmseg.load_foundation):
        (found,) = doctest.DocTestFinder(recurse=False).find(thing, thing.__name__)
        assert len(found.examples) >= 3
        assert doctest.DocTestRunner().run(found).failed == 0


def test_no_docstring_has_an_example_that_is_not_run():
    with_examples = {path.name for path in (ROOT / "fmseg").rglob("*.py") if ">>>" in path.read_text()}
    assert with_examples == {"predictor.py", "api.py"}  # Predictor, load_foundation


def test_code_of_cards_runs(home, tmp_path):
    code = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    folder = home.foundation("ultrasound", "abdomen")
    shutil.copytree(folder, tmp_path / "this" / "folder")
    (snippet,) = code.findall(model_card(Foundation.load(folder / CARD), ()))
    names: dict[str, object] = {"image": torch.rand(2, 1, 32, 32)}
    exec(snippet, names)
    assert names["tokens"].shape[::2] == (2, tiny_run.ARCHITECTURE.width)
    shutil.copy("new_images/scan_1.png", "image.png")
    with zipfile.ZipFile(export_models(home, None, tmp_path / f"{NAME}.fmseg").path) as bundle:
        (snippet,) = code.findall(bundle.read("card.md").decode())
    exec(snippet, names)
    assert names["answer"].labels.shape == (40, 50)


def test_an_image_unlike_those_of_the_training_is_told(tmp_path):
    ranges = {"num_patients": 9, "sizes": {"slices": [4, 5]}, "tones": {}, "planes": ["sagittal"], "colours": ["grey"]}
    run = tiny_run.config().evolve(ranges=ranges)
    tiny_run.write_run(Workspace.find(tmp_path).results_of(NAME) / "linear__plans" / "fold_0", run)
    predictor = fmseg.Predictor.from_workspace(root=tmp_path)
    # how an array lies nobody knows
    assert predictor.predict(np.zeros((1, 5, 40, 40), np.uint8), spacing_mm=(1, 1, 1)).unlike == ""
    assert predictor.predict(np.zeros((1, 99, 40, 40), np.uint8)).unlike == "slices 99 (trained on 4 to 5)"
