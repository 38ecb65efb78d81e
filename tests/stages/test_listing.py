import pytest

from fmseg.errors import UnknownName
from fmseg.stages.fingerprint import fingerprint
from fmseg.stages.listing import KINDS, listing
from fmseg.stages.plan import plan
from fmseg.stages.preprocess import preprocess

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
