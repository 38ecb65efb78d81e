import finished
import pytest
import tiny_run

from fmseg.errors import UnknownName
from fmseg.networks.vit import ViT
from fmseg.networks.weights import save_backbone
from fmseg.records.foundation import CARD, Foundation
from fmseg.stages.export import export_foundation, export_models
from fmseg.stages.fingerprint import fingerprint
from fmseg.stages.import_bundle import import_bundle
from fmseg.stages.listing import KINDS, listing, standing
from fmseg.stages.plan import plan
from fmseg.stages.preprocess import preprocess
from fmseg.workspace import Workspace, dataset_id

NAME = "Dataset501_Discs"


@pytest.mark.parametrize(
    ("task", "after"), [("segmentation", "fmseg pretrain; fmseg train 501"), ("unlabelled", "fmseg pretrain")]
)
def test_the_next_command_follows_the_state(raw_dataset, task, after):
    workspace = raw_dataset(NAME, task=task)
    prepare = "fmseg plan_and_preprocess -d 501"
    assert listing(workspace, "datasets")[2] == [(NAME, None, None, "raw", prepare)]
    fingerprint(workspace, NAME, num_processes=0)
    assert listing(workspace, "datasets")[2] == [(NAME, "ultrasound", 6, "measured", prepare)]
    plan(workspace, NAME)
    assert listing(workspace, "datasets")[2] == [(NAME, "ultrasound", 6, "planned", prepare)]
    preprocess(workspace, NAME, num_processes=0)
    assert listing(workspace, "datasets")[2] == [(NAME, "ultrasound", 6, "prepared", after)]


def test_every_kind_can_be_listed_and_others_are_answered(raw_dataset):
    workspace = raw_dataset(NAME)
    for kind in KINDS:
        title, columns, rows = listing(workspace, kind)
        assert title
        assert all(len(row) == len(columns) for row in rows)
    with pytest.raises(UnknownName, match="recipes"):
        listing(workspace, "recipe")


def test_imported_models_and_checkpoints_are_listed_where_no_data_are(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    here, there = (Workspace.find(tmp_path / name) for name in ("here", "there"))
    tiny_run.write_run(here.results_of(NAME) / "linear__fmsegPlans" / "fold_0", tiny_run.config())
    folder = here.foundation("ultrasound", "abdomen")
    tiny_run.write_foundation(folder, "abdomen", [])
    digest = save_backbone(ViT(tiny_run.ARCHITECTURE), folder)
    Foundation.load(folder / CARD).evolve(weights_sha256=digest).save(folder / CARD)
    models = export_models(here, None, tmp_path / "discs.fmseg").path
    import_bundle(there, models, name="601")
    import_bundle(there, export_foundation(here, "abdomen", tmp_path / "abdomen.fmseg").path)
    command = "fmseg predict -i in -o out -d 601"
    assert listing(there, "datasets")[2] == [("Dataset601_Discs", "ultrasound", None, "models imported", command)]
    assert [row[0] for row in listing(there, "foundations")[2]] == ["abdomen"]
    ((name, source, task, networks, *_),) = listing(there, "models")[2]
    assert (name, source, task, networks) == ("Dataset601_Discs", "imported", "segmentation", "1, none chosen")
    assert standing(there).next_command == "fmseg predict -i in -o out"
    import_bundle(there, models, name="602")
    assert standing(there).next_command == "fmseg predict -i in -o out -d 601"


def test_models_are_listed_with_what_predicts_and_how_good_it_is(tmp_path):
    rows = {row[0]: row[1:] for row in listing(finished.write_finished(tmp_path), "models")[2]}
    assert set(rows) == {finished.SEGMENTED, finished.CLASSIFIED}
    source, task, networks, measure, score, _ = rows[finished.SEGMENTED]
    assert (source, task, networks, measure) == ("trained here", "segmentation", "2 linear", "Dice")
    assert 0.8 < score < 1


def test_where_several_are_trained_the_next_command_says_whose_models(tmp_path):
    workspace = finished.write_finished(tmp_path)
    for name, *_, command in listing(workspace, "datasets")[2]:
        assert command == f"fmseg predict -i in -o out -d {dataset_id(name)}"
    assert " -d 5" in standing(workspace).next_command or "predict" not in standing(workspace).next_command
