import csv
import json
import shutil

import numpy as np
import pytest
import tiny_run
from PIL import Image

from fmseg.errors import EnvironmentProblem, NotReady, UsageError
from fmseg.imaging.case import content_hash
from fmseg.records.plans import Fold
from fmseg.records.run import RunFolder
from fmseg.records.scores import Interval, Scores
from fmseg.records.seen import Seen
from fmseg.records.selection import CleanUp, Member, Selection
from fmseg.stages.evaluate import evaluate
from fmseg.stages.fingerprint import fingerprint
from fmseg.stages.predict import predict
from fmseg.workspace import Workspace

NAME = "Dataset501_Discs"


@pytest.fixture
def workspace(tmp_path):
    place = Workspace(tmp_path / "raw", tmp_path / "prepared", tmp_path / "results")
    for fold in range(2):
        folder = place.results_of(NAME) / "linear__plans" / f"fold_{fold}"
        tiny_run.write_run(folder, tiny_run.config(fold=fold, cases=Fold(train=("x",), val=("y",))), seed=fold)
    return place


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for index, name in enumerate(["a_0000.png", "b.png", "c.tif", "d.jpg"]):
        image, _ = tiny_run.disc(np.random.default_rng(index), (30 + 10 * index, 50))
        Image.fromarray(image).save(folder / name)
    return folder


def select(workspace, **changes):
    values = {
        "dataset": NAME,
        "plans_digest": tiny_run.plans().digest(),
        "members": (Member(runs="linear__plans", folds=(0, 1), weight=1),),
        "clean_up": (CleanUp(output="disc", rule="fill_holes", min_share=0.0),),
        "candidates": (),
        "measure": "Dice",
        "score": Interval(mean=0.9, low=0.8, high=1.0),
        "because": "a test",
    }
    Selection(**(values | changes)).save(workspace.results_of(NAME) / "selection.json")


def rows(folder):
    with open(folder / "report.csv", newline="", encoding="utf-8") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def test_each_image_gets_a_label_map_of_its_name_size_and_format(workspace, images, tmp_path):
    select(workspace)
    before = {path.name: path.read_bytes() for path in images.iterdir()}
    report = predict(workspace, images, tmp_path / "out")
    assert (report.num_predicted, report.num_existing, report.exit_code) == (4, 0, 0)
    for source, target in [("a_0000.png", "a.png"), ("b.png", "b.png"), ("c.tif", "c.tif"), ("d.jpg", "d.png")]:
        made = Image.open(tmp_path / "out" / target)
        assert made.size == Image.open(images / source).size
        assert set(np.unique(made)) <= {0, 1}
    found = rows(tmp_path / "out")
    assert list(found) == ["a", "b", "c", "d"]
    share = np.mean(np.asarray(Image.open(tmp_path / "out" / "b.png")) == 1)
    assert float(found["b"]["share_disc"]) == pytest.approx(share, abs=1e-4)
    assert 0 <= float(found["b"]["disagreement"]) <= 1 and 0 < float(found["b"]["confidence"]) <= 1
    card = json.loads((tmp_path / "out" / "predict.json").read_text())
    assert card["plans_digest"] == tiny_run.plans().digest() and len(card["runs"]) == 2
    assert {path.name: path.read_bytes() for path in images.iterdir()} == before


def test_a_second_run_keeps_what_is_there_and_makes_what_is_missing(workspace, images, tmp_path):
    out = tmp_path / "out"
    predict(workspace, images, out)
    whole = {path.name: path.read_bytes() for path in out.iterdir() if path.name != "predict.json"}
    assert predict(workspace, images, out).num_existing == 4
    (out / "b.png").unlink()
    report = predict(workspace, images, out)
    assert (report.num_predicted, report.num_existing) == (1, 3)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.name != "predict.json"} == whole
    # killed after the label map, before its line in the report
    lines = (out / "report.csv").read_text().splitlines(keepends=True)
    (out / "report.csv").write_text("".join(lines[:-1]))
    assert predict(workspace, images, out).num_predicted == 1
    assert (out / "report.csv").read_bytes() == whole["report.csv"]
    assert predict(workspace, images, out, overwrite=True).num_predicted == 4


def test_bad_files_are_named_and_the_others_done(workspace, images, tmp_path):
    (images / "b.png").write_bytes(b"nothing")
    (images / "d.png").write_bytes((images / "a_0000.png").read_bytes())  # d.jpg would be written there too
    report = predict(workspace, images, tmp_path / "out")
    assert report.exit_code == 5 and report.num_predicted == 2
    assert [name for name, _ in report.failed] == ["d.jpg", "d.png", "b.png"]
    assert rows(tmp_path / "out")["b"]["note"].startswith("skipped")
    assert not (tmp_path / "out" / "b.png").exists()
    # mended, they are done at the next run
    (images / "d.png").unlink()
    (images / "b.png").write_bytes((images / "a_0000.png").read_bytes())
    again = predict(workspace, images, tmp_path / "out")
    assert (again.num_predicted, again.num_existing, again.exit_code) == (2, 2, 0)


def test_images_of_one_name_and_two_endings_have_a_line_each(workspace, images, tmp_path):
    Image.fromarray(255 - np.asarray(Image.open(images / "b.png"))).save(images / "b.tif")
    report = predict(workspace, images, tmp_path / "out")
    assert report.num_predicted == 5 and report.exit_code == 0
    files = {case: row["file"] for case, row in rows(tmp_path / "out").items()}
    assert files == {"a": "a.png", "b.png": "b.png", "b.tif": "b.tif", "c": "c.tif", "d": "d.png"}
    # one that comes later takes nobody's line either
    shutil.copy(images / "b.png", images / "c.bmp.png")
    Image.open(images / "c.tif").save(images / "c.png")
    assert predict(workspace, images, tmp_path / "out").num_existing == 5
    files = [row["file"] for row in rows(tmp_path / "out").values()]
    assert sorted(files) == ["a.png", "b.png", "b.tif", "c.bmp.png", "c.png", "c.tif", "d.png"]


def test_what_is_refused_stands_in_the_table_until_it_is_mended(workspace, images, tmp_path):
    shutil.copy(images / "a_0000.png", images / "B.png")  # b.png is there, which some file systems take for one
    assert predict(workspace, images, tmp_path / "out").exit_code == 5
    found = rows(tmp_path / "out")
    assert {case for case, row in found.items() if not row["file"]} == {"b.png", "B.png"}
    assert "Rename one of them" in found["B.png"]["note"]
    (images / "B.png").rename(images / "e.png")
    assert predict(workspace, images, tmp_path / "out").exit_code == 0
    assert all(row["file"] for row in rows(tmp_path / "out").values())


def test_inputs_and_other_peoples_files_are_never_overwritten(workspace, images, tmp_path):
    with pytest.raises(UsageError, match="among the images"):
        predict(workspace, images, images)
    (tmp_path / "link").symlink_to(images)
    with pytest.raises(UsageError, match="among the images"):
        predict(workspace, images, tmp_path / "link")
    out = tmp_path / "out"
    out.mkdir()
    (out / "b.png").write_bytes(b"drawn by hand")
    with pytest.raises(UsageError, match=r"b\.png is there already"):
        predict(workspace, images, out)
    assert (out / "b.png").read_bytes() == b"drawn by hand"


def test_predictions_of_other_settings_are_not_mixed(workspace, images, tmp_path):
    predict(workspace, images, tmp_path / "out")
    with pytest.raises(UsageError, match="other models or settings"):
        predict(workspace, images, tmp_path / "out", mirror=False)
    assert predict(workspace, images, tmp_path / "out", mirror=False, overwrite=True).num_predicted == 4


def test_a_place_that_cannot_be_written_is_named(workspace, images, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="file"):
        predict(workspace, images, tmp_path / "file" / "out")


def test_overlays_show_the_image_with_contours(workspace, images, tmp_path):
    predict(workspace, images, tmp_path / "out")
    assert predict(workspace, images, tmp_path / "out", overlays=True).num_predicted == 4
    assert predict(workspace, images, tmp_path / "out", overlays=True).num_existing == 4
    drawn = np.asarray(Image.open(tmp_path / "out" / "overlays" / "b.png.png"))
    image = np.asarray(Image.open(images / "b.png"))
    labels = np.asarray(Image.open(tmp_path / "out" / "b.png"))
    assert drawn.shape == (*image.shape, 3)
    assert (drawn[labels == 0] == image[labels == 0][:, None]).mean() > 0.9
    assert labels.any() and (drawn[labels == 1] != image[labels == 1][:, None]).any()


def test_without_a_selection_the_one_recipe_that_is_there_predicts(workspace, images, tmp_path, caplog):
    with caplog.at_level("INFO", logger="fmseg"):
        predict(workspace, images, tmp_path / "out")
    assert "no selection.json" in caplog.text and "fold_0, fold_1" in caplog.text
    tiny_run.write_run(workspace.results_of(NAME) / "upernet__plans" / "fold_0", tiny_run.config())
    with pytest.raises(NotReady, match="fmseg find_best 501"):
        predict(workspace, images, tmp_path / "out")


def test_the_run_on_all_cases_is_preferred_to_the_folds(workspace, images, tmp_path):
    tiny_run.write_run(workspace.results_of(NAME) / "linear__plans" / "fold_all", tiny_run.config(fold=-1))
    predict(workspace, images, tmp_path / "out")
    card = json.loads((tmp_path / "out" / "predict.json").read_text())
    assert [run["run"] for run in card["runs"]] == ["linear__plans/fold_all"]


def test_the_dataset_must_be_clear(workspace, images, tmp_path):
    with pytest.raises(NotReady, match="no trained model"):
        predict(Workspace(tmp_path, tmp_path, tmp_path / "nowhere"), images, tmp_path / "out")
    tiny_run.write_run(workspace.results_of("Dataset502_Other") / "linear__plans" / "fold_0", tiny_run.config())
    with pytest.raises(UsageError, match="Dataset501_Discs, Dataset502_Other"):
        predict(workspace, images, tmp_path / "out")
    assert predict(workspace, images, tmp_path / "out", dataset="501").num_predicted == 4


def test_models_trained_again_since_the_selection_are_refused(workspace, images, tmp_path):
    select(workspace, plans_digest="another")
    with pytest.raises(NotReady, match="fmseg find_best"):
        predict(workspace, images, tmp_path / "out")


def test_an_unfinished_member_is_named(workspace, images, tmp_path):
    folder = workspace.results_of(NAME) / "linear__plans" / "fold_1"
    select(workspace)
    (folder / "model.safetensors").unlink()
    with pytest.raises(NotReady, match=r"fold_1/model\.safetensors"):
        predict(workspace, images, tmp_path / "out")
    assert RunFolder(folder).is_finished


def learn_on(workspace, folder, train, pretrained):
    """Make the two folds runs whose labelled cases, and those of their pretraining, are images of a folder."""
    dataset = workspace.raw_dataset(NAME)
    tiny_run.write_dataset(dataset, ["x"])
    for number, name in enumerate(train):
        shutil.copy(folder / name, dataset / "imagesTr" / f"t{number}_0000.png")
        label = np.zeros(np.asarray(Image.open(folder / name)).shape, np.uint8)
        label[5:15, 5:15] = 1
        Image.fromarray(label).save(dataset / "labelsTr" / f"t{number}.png")
    declared = json.loads((dataset / "dataset.json").read_text())
    (dataset / "dataset.json").write_text(json.dumps(declared | {"numTraining": 1 + len(train)}))
    fingerprint(workspace, NAME, num_processes=0)
    seen = [content_hash(np.asarray(Image.open(folder / name))[None, None]) for name in pretrained]
    init = tiny_run.write_foundation(workspace.foundation("ultrasound", "one"), "one", seen)
    cases = tuple(f"t{number}" for number in range(len(train)))
    for fold in range(2):
        run = tiny_run.config(fold=fold, cases=Fold(train=("x",), val=cases)).evolve(init=init)
        run.save(workspace.results_of(NAME) / "linear__plans" / f"fold_{fold}" / "run.json")


def test_images_that_the_models_have_met_are_told_and_evaluate_knows(workspace, images, tmp_path, caplog):
    learn_on(workspace, images, train=["a_0000.png"], pretrained=["b.png", "c.tif", "d.jpg"])
    out = tmp_path / "out"
    with caplog.at_level("INFO", logger="fmseg"):
        report = predict(workspace, images, out)
    assert report.seen == Seen(num_cases=4, training=1, pretraining=3, unknown=0)
    assert "1 in training, with their labels; 3 in pretraining" in caplog.text
    assert {case: row["seen"] for case, row in rows(out).items()} == {
        "a": "training",
        "b": "pretraining",
        "c": "pretraining",
        "d": "pretraining",
    }
    assert json.loads((out / "predict.json").read_text())["seen"] == report.seen.model_dump()
    assert json.loads(json.dumps(report.as_dict()))["seen"]["pretraining"] == 3
    # a run that goes on says the same, of old lines and of new ones
    whole = {path.name: path.read_bytes() for path in out.iterdir()}
    (out / "b.png").unlink()
    assert predict(workspace, images, out).seen == report.seen
    assert {path.name: path.read_bytes() for path in out.iterdir()} == whole
    # two of them have labels
    labels = tmp_path / "labels"
    labels.mkdir()
    for name in ("a.png", "b.png"):
        shutil.copy(out / name, labels / name)
    caplog.clear()
    with caplog.at_level("INFO", logger="fmseg"):
        scores = evaluate(workspace, NAME, out, labels)
    assert scores.seen == Seen(num_cases=2, training=1, pretraining=1, unknown=0)
    assert "Seen before, of 2 cases" in caplog.text
    assert Scores.load(out / "scores.json") == scores
    assert json.loads((out / "summary.json").read_text())["seen"] == scores.seen.model_dump()


def test_what_is_not_known_of_a_pretraining_is_told(workspace, images, tmp_path, caplog):
    learn_on(workspace, images, train=["a_0000.png"], pretrained=["b.png"])
    shutil.rmtree(workspace.foundations())
    with caplog.at_level("INFO", logger="fmseg"):
        report = predict(workspace, images, tmp_path / "out")
    assert report.seen == Seen(num_cases=4, training=1, pretraining=0, unknown=3)
    assert "Not known: the list of the images that one has seen" in caplog.text


def test_another_picture_of_the_same_name_has_not_been_seen(workspace, images, tmp_path):
    learn_on(workspace, images, train=["a_0000.png"], pretrained=["b.png"])
    for name in ("a_0000.png", "b.png"):
        Image.fromarray(255 - np.asarray(Image.open(images / name))).save(images / name)
    report = predict(workspace, images, tmp_path / "out")
    assert report.seen == Seen(num_cases=4, training=0, pretraining=0, unknown=0)
