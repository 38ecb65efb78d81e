"""What is pretrained on: each look once, test images never, and the same images with a store as without one."""

import dataclasses
import json
import shutil

import cv2
import numpy as np
import pytest

from fmseg.errors import BadData, NotReady
from fmseg.imaging.measure import read_facts
from fmseg.records.dataset import Dataset
from fmseg.records.plans import Plans
from fmseg.sampling.corpora import collect_corpora
from fmseg.sampling.corpus import ViewDataset
from fmseg.sampling.distinct import distinct_images
from fmseg.sampling.file_images import FileImages
from fmseg.sampling.order import Draw
from fmseg.sampling.store import Store
from fmseg.stages.doctor import doctor
from fmseg.stages.fingerprint import fingerprint
from fmseg.stages.plan import plan
from fmseg.stages.preprocess import preprocess

NAME = "Dataset501_Discs"


def prepare(workspace, name=NAME) -> Plans:
    fingerprint(workspace, name, num_processes=0)
    doctor(workspace, name)
    plans = plan(workspace, name)
    preprocess(workspace, name, num_processes=0)
    return plans


def blurred(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(64, 80)).astype(np.float32)
    image = cv2.GaussianBlur(noise, (0, 0), 5)
    return np.clip(128 + 50 * image / image.std(), 0, 255).astype(np.uint8)


def archive_of(raw_dataset, images: dict[str, np.ndarray], name="Dataset502_Archive"):
    workspace = raw_dataset(name, task="unlabelled")
    folder = workspace.raw_dataset(name) / "imagesTr"
    shutil.rmtree(folder)
    folder.mkdir()
    for case, image in images.items():
        cv2.imwrite(str(folder / f"{case}.png"), image)
    path = workspace.raw_dataset(name) / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"numTraining": None}))
    return workspace


def test_copies_and_frames_are_used_once_and_test_images_never(raw_dataset):
    image = blurred(1)
    images = {
        "P0_0": image,
        "P0_1": np.clip(image + np.random.default_rng(0).normal(0, 3, image.shape), 0, 255).astype(np.uint8),
        "P0_2": blurred(2),
        "P1_0": image,  # equal, of another patient
        "P1_1": np.clip(image * 0.9, 0, 255).astype(np.uint8),  # alike, of another patient
        "P2_0": blurred(3),  # a test image of another dataset
    }
    workspace = archive_of(raw_dataset, images)
    raw_dataset()
    tests = workspace.raw_dataset(NAME) / "imagesTs"
    tests.mkdir()
    cv2.imwrite(str(tests / "P7_0_0000.png"), blurred(3))
    plans = prepare(workspace, "Dataset502_Archive")
    prepare(workspace)
    (corpus,) = collect_corpora(workspace, ["Dataset502_Archive"])
    assert corpus.distinct(plans.pretraining.min_difference).tolist() == [0, 2, 4]
    assert corpus.distinct(0).tolist() == [0, 1, 2, 3, 4]
    (both,) = collect_corpora(workspace, ["Dataset502_Archive", NAME])
    assert both.names == (NAME, "Dataset502_Archive"), "in one order, however they are typed"
    first = len(both.stores[0])
    assert set(both.distinct(0).tolist()) >= {0, *range(first, first + 5)}
    facts = read_facts(corpus.stores[0].folder.parent / "cases.jsonl")
    everything = np.array([int(fact.content_hash[:16], 16) for fact in facts], np.uint64)
    with pytest.raises(BadData, match="none is left"):
        distinct_images(corpus.stores, 0, everything.tobytes())
    shutil.rmtree(tests)
    doctor(workspace, NAME)
    (corpus,) = collect_corpora(workspace, ["Dataset502_Archive"])
    assert corpus.distinct(0).tolist() == list(range(6))


def test_a_sample_is_the_image_of_its_number(raw_dataset):
    workspace = raw_dataset(task="unlabelled")
    plans = prepare(workspace)
    store = Store.of(workspace.prepared(NAME), plans)
    recipe = plans.pretraining
    few = ViewDataset([store, store], recipe, seed=3, numbers=np.array([1, 4, 9]))
    everything = ViewDataset([store, store], recipe, seed=3)
    assert (len(few), len(everything)) == (3, 12)
    assert few.describe(Draw(0, 0, 0, 2)) == everything.describe(Draw(0, 0, 0, 9)) == "P01_1_0000"


@pytest.mark.parametrize("options", [{}, {"ending": ".nii.gz"}, {"colour": "rgb"}], ids=str)
def test_images_from_files_are_those_of_the_store_byte_for_byte(raw_dataset, options):
    workspace = raw_dataset(task="unlabelled", num_patients=12, **options)
    folder = workspace.raw_dataset(NAME) / "imagesTr"
    sorted(folder.iterdir())[3].write_bytes(b"broken")
    if not options:  # readable, and refused when it is prepared
        cv2.imwrite(str(folder / "P03_0_0000.png"), np.zeros((40, 40), np.uint16))
    plans = prepare(workspace)
    store = Store.of(workspace.prepared(NAME), plans)
    images = FileImages(Dataset.load(workspace.raw_dataset(NAME)), workspace.prepared(NAME), plans)
    assert len(images) == len(store) == sum(len(each) for each in images.cases.values())
    assert list(images.case_names) == store.case_names
    assert images.cases == store.cases
    for index in [*range(len(store)), 0, len(store) - 1]:
        assert images.image(index).tobytes() == store.image(index).tobytes()
        assert images.image(index).dtype == store.dtype
    shutil.rmtree(store.folder)
    with pytest.raises(NotReady, match="No dataset is prepared"):
        collect_corpora(workspace, [NAME])
    (corpus,) = collect_corpora(workspace, [NAME], from_files=True)
    assert corpus.num_images == len(images)
    (folder / "P11_9_0000.png").write_bytes(b"new")
    with pytest.raises(NotReady, match="images have changed"):
        collect_corpora(workspace, [NAME], from_files=True)


def test_a_store_older_than_the_measurements_is_refused(raw_dataset):
    workspace = raw_dataset(task="unlabelled")
    prepare(workspace)
    (workspace.raw_dataset(NAME) / "imagesTr" / "P01_0_0000.png").unlink()
    fingerprint(workspace, NAME, num_processes=0)
    (corpus,) = collect_corpora(workspace, [NAME])
    with pytest.raises(NotReady, match="measured again"):
        corpus.distinct(8)


def test_measured_elsewhere_first_or_later_the_same_images_are_chosen(raw_dataset):
    workspace = raw_dataset(task="unlabelled", num_patients=8)
    prepare(workspace)
    other = dataclasses.replace(workspace, preprocessed=workspace.preprocessed.with_name("other"))
    fingerprint(other, NAME, num_processes=2)
    plan(other, NAME)
    preprocess(other, NAME, num_processes=2)
    chosen = [collect_corpora(each, [NAME])[0].distinct(8).tolist() for each in (workspace, other)]
    assert chosen[0] == chosen[1]
