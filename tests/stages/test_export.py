"""Models leave in one file, tell nothing of patients, and predict elsewhere what they predict here."""

import csv
import json
import shutil

import numpy as np
import pytest
import tiny_run
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from fmseg.archive import pack
from fmseg.errors import BadData, NotReady, UnknownName, UsageError
from fmseg.files import sha256, to_json
from fmseg.inference.bundles import opened, read_manifest
from fmseg.networks.vit import ViT
from fmseg.networks.weights import load_backbone, save_backbone
from fmseg.records.bundle import MANIFEST
from fmseg.records.foundation import CARD, Foundation, read_seen
from fmseg.records.plans import Fold
from fmseg.records.ranges import Ranges
from fmseg.records.recipe import UNetShape
from fmseg.records.run import Initialisation, Provenance
from fmseg.records.scores import Interval
from fmseg.records.selection import CleanUp, Member, Selection
from fmseg.stages.export import export_foundation, export_models
from fmseg.stages.fingerprint import fingerprint
from fmseg.stages.import_bundle import import_bundle
from fmseg.stages.predict import predict
from fmseg.workspace import Workspace

NAME = "Dataset501_Discs"
CASES = ("Meier_Anna", "Huber_Josef")
SECRET = Provenance(fmseg="0", commit="", packages={}, command="fmseg --root /home/dr_meier train 501")


def workspace_in(folder):
    return Workspace(folder / "raw", folder / "prepared", folder / "results")


def draw(folder, names, first=0):
    folder.mkdir(parents=True)
    for index, name in enumerate(names):
        image, _ = tiny_run.disc(np.random.default_rng(first + index), (30 + 5 * index, 50))
        Image.fromarray(image).save(folder / name)
    return folder


@pytest.fixture
def images(tmp_path):
    return draw(tmp_path / "in", ["a.png", "b.png", "c.tif"])


@pytest.fixture
def home(tmp_path):
    """A workspace with two trained folds that started from a checkpoint, and a selection."""
    place = workspace_in(tmp_path / "home")
    tiny_run.write_dataset(place.raw_dataset(NAME), list(CASES))
    fingerprint(place, NAME, num_processes=0)
    folder = place.foundation("ultrasound", "one")
    init = tiny_run.write_foundation(folder, "one", ["0123456789abcdef" * 2])
    digest = save_backbone(ViT(tiny_run.ARCHITECTURE), folder)
    Foundation.load(folder / CARD).evolve(
        weights_sha256=digest, licence="CC-BY-4.0", provenance=SECRET.model_dump()
    ).save(folder / CARD)
    init = Initialisation(name="one", sha256=digest, because=init.because)
    write_runs(place, init, tiny_run.config(cases=Fold(train=CASES[:1], val=CASES[1:])))
    select(place, tiny_run.plans().digest(), clean_up=(CleanUp(output="disc", rule="fill_holes", min_share=0.0),))
    return place


#: of larger images than those that are predicted
RANGES = Ranges(num_patients=30, sizes={"mean side": (800.0, 900.0)}, tones={}, planes=(), colours=("grey",))


def write_runs(place, init, config):
    for fold in range(2):
        changes = {"init": init.model_dump(), "provenance": SECRET.model_dump(), "ranges": RANGES.model_dump()}
        run = config.evolve(fold=fold, **changes)
        tiny_run.write_run(place.results_of(NAME) / "linear__plans" / f"fold_{fold}", run, seed=fold)


def select(place, digest, **changes):
    values = {
        "dataset": NAME,
        "plans_digest": digest,
        "members": (Member(runs="linear__plans", folds=(0, 1), weight=1),),
        "clean_up": (),
        "candidates": (),
        "measure": "Dice",
        "score": Interval(mean=0.9, low=0.8, high=1.0),
        "because": "a test",
    }
    Selection(**(values | changes)).save(place.results_of(NAME) / "selection.json")


@pytest.fixture
def classifier(tmp_path):
    """A workspace with two trained folds of a classification, without selection or data."""
    place = workspace_in(tmp_path / "classes")
    write_runs(place, Initialisation(name="scratch", sha256="", because="a test"), tiny_run.class_config())
    return place


@pytest.fixture
def bundle(home, tmp_path):
    return export_models(home, "501", tmp_path / "discs.fmseg").path


def results(folder):
    """Return the files of a folder; of predict.json what determines the predictions."""
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    card = json.loads(found.pop("predict.json"))
    return found | {"predict.json": {key: value for key, value in card.items() if key != "provenance"}}


@pytest.mark.parametrize("kind", ["home", "classifier"])
def test_a_bundle_predicts_in_an_empty_workspace_with_the_same_bytes(kind, images, tmp_path, request):
    place = request.getfixturevalue(kind)
    if kind == "home":  # one image is among the labelled cases
        shutil.copy(place.raw_dataset(NAME) / "imagesTr" / f"{CASES[0]}_0000.png", images / "known.png")
    path = export_models(place, None, tmp_path / "model.fmseg").path
    predict(place, images, tmp_path / "here")
    empty = workspace_in(tmp_path / "empty")
    predict(empty, images, tmp_path / "there", model=path)
    assert results(tmp_path / "there") == results(tmp_path / "here")
    (table,) = (tmp_path / "there").glob("*.csv")
    assert "(trained on 800 to 900)" in table.read_text()
    assert not empty.results.exists()
    import_bundle(empty, path)
    predict(empty, images, tmp_path / "imported")
    assert results(tmp_path / "imported") == results(tmp_path / "here")
    if kind == "home":
        with open(tmp_path / "there" / "report.csv", newline="") as file:
            seen = {row["case"]: row["seen"] for row in csv.DictReader(file)}
        assert seen == {"a": "no", "b": "no", "c": "no", "known": "training"}


SHAPE = UNetShape(
    features=(4, 8, 8),
    kernels=((3, 3),) * 3,
    strides=((1, 1), (2, 2), (2, 2)),
    supervision=(0.6667, 0.3333),
)
OTHERS = {
    "unet": tiny_run.config(
        recipe=tiny_run.RECIPE.evolve(network="unet", decoder="none", decoder_channels=0, unet=SHAPE).model_dump()
    ),
    "knn": tiny_run.class_config().evolve(
        recipe=tiny_run.RECIPE.evolve(decoder="nearest_head", freeze_backbone=True).model_dump()
    ),
}


@pytest.mark.parametrize("kind", [pytest.param("unet", marks=pytest.mark.slow), "knn"])  # one imports MONAI
def test_networks_without_our_backbone_and_banks_of_images_travel_too(kind, images, tmp_path):
    place = workspace_in(tmp_path / "home")
    folder = place.results_of(NAME) / f"{kind}__plans" / "fold_0"
    model = tiny_run.write_run(folder, OTHERS[kind])
    if kind == "knn":
        rows = torch.nn.functional.normalize(torch.randn(5, 4), dim=1)
        model.head.fill(rows, torch.eye(2)[[0, 1, 0, 1, 1]], torch.arange(4), 3, is_exclusive=True)
        save_file(model.state_dict(), folder / "model.safetensors")
    path = export_models(place, None, tmp_path / "model.fmseg").path
    predict(place, images, tmp_path / "here")
    predict(workspace_in(tmp_path / "empty"), images, tmp_path / "there", model=path)
    assert results(tmp_path / "there") == results(tmp_path / "here")


def test_the_same_models_give_the_same_bytes_and_again_after_import(home, bundle, tmp_path):
    moved = workspace_in(tmp_path / "elsewhere")
    shutil.copytree(tmp_path / "home", tmp_path / "elsewhere")
    assert export_models(moved, None, tmp_path / "two.fmseg").path.read_bytes() == bundle.read_bytes()
    empty = workspace_in(tmp_path / "empty")
    import_bundle(empty, bundle, name="601")
    assert export_models(empty, "601", tmp_path / "three.fmseg").path.read_bytes() == bundle.read_bytes()
    with pytest.raises(UsageError, match=r"under: CC-BY-4\.0"):
        export_models(empty, "601", tmp_path / "four.fmseg", licence="CC0")


@pytest.mark.parametrize("kind", ["models", "foundation"])
def test_no_path_and_no_patient_is_in_it(kind, home, tmp_path):
    path = tmp_path / "out.fmseg"
    if kind == "models":
        export_models(home, "501", path)
    else:
        export_foundation(home, "one", path)
    content = path.read_bytes()
    for word in (*CASES, "Meier", "/home", str(tmp_path), tmp_path.name):
        assert word.encode() not in content


def test_the_manifest_and_the_card_tell_what_it_is(home, bundle):
    found = read_manifest(bundle)
    assert (found.kind, found.name, found.task, found.licence) == ("models", NAME, "segmentation", "CC-BY-4.0")
    assert [(origin.name, origin.licence) for origin in found.origins] == [("one", "CC-BY-4.0")]
    assert found.is_seen_complete
    with opened(bundle) as folder:
        card = (folder / "card.md").read_text()
        declared = json.loads((folder / "dataset.json").read_text())
    assert "Dice 0.900 (0.800 to 1.000" in card and "CC-BY-4.0" in card and "2 labelled cases" in card
    assert declared["labels"] == {"background": 0, "disc": 1} and "numTraining" not in declared
    assert not folder.exists()


def test_a_checkpoint_leaves_and_comes_in(home, tmp_path):
    path = export_foundation(home, "one", tmp_path / "one.fmseg").path
    empty = workspace_in(tmp_path / "empty")
    done = import_bundle(empty, path, name="theirs")
    vit, card = load_backbone(done.folder)
    mine, own = load_backbone(home.foundation("ultrasound", "one"))
    assert card.name == "theirs" and card.evolve(name="one", provenance=own.provenance.model_dump()) == own
    assert all((vit.state_dict()[name] == tensor).all() for name, tensor in mine.state_dict().items())
    assert read_seen(done.folder).tolist() == read_seen(home.foundation("ultrasound", "one")).tolist() != []
    assert "licence: cc-by-4.0" in (done.folder / "card.md").read_text().lower()
    with pytest.raises(UsageError, match="predicts nothing"):
        predict(empty, tmp_path, tmp_path / "out", model=path)
    with pytest.raises(UnknownName, match="Did you mean 'one'"):
        export_foundation(home, "onee", tmp_path / "two.fmseg")


def test_nothing_is_overwritten_unless_asked_and_trained_models_never(home, bundle, tmp_path):
    with pytest.raises(UsageError, match="is there already"):
        export_models(home, "501", bundle)
    before = bundle.read_bytes()
    export_models(home, "501", bundle, overwrite=True)
    assert bundle.read_bytes() == before
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="made here"):
            import_bundle(home, bundle, overwrite=overwrite)
    done = import_bundle(home, bundle, name="601")
    assert done.folder.name == "Dataset601_Discs" and done.next_command == "fmseg predict -d 601 -i in -o out"
    (done.folder / "mine.txt").write_text("")
    with pytest.raises(UsageError, match="imported before"):
        import_bundle(home, bundle, name="601")
    assert (done.folder / "mine.txt").exists()
    import_bundle(home, bundle, name="601", overwrite=True)
    assert not (done.folder / "mine.txt").exists() and (done.folder / MANIFEST).exists()
    with pytest.raises(UsageError, match="taken by"):
        import_bundle(home, bundle, name="Dataset601_Other")
    assert sorted(path.name for path in home.results.iterdir()) == [
        ".lock",
        NAME,
        "Dataset601_Discs",
        "foundation",
    ]


def test_models_of_several_recipes_must_be_chosen_first(home, tmp_path):
    (home.results_of(NAME) / "selection.json").unlink()
    tiny_run.write_run(home.results_of(NAME) / "upernet__plans" / "fold_0", tiny_run.config())
    with pytest.raises(NotReady, match="find_best"):
        export_models(home, "501", tmp_path / "x.fmseg")


def rewritten(bundle, path, change, drop=()):
    """Write a bundle again with some files changed and all hashes right. change: folder -> None."""
    with opened(bundle) as folder:
        change(folder)
        manifest = json.loads((folder / MANIFEST).read_bytes())
        names = [str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()]
        content = {name: (folder / name).read_bytes() for name in names if name not in (MANIFEST, *drop)}
    manifest["files"] = {name: {"sha256": sha256(each), "num_bytes": len(each)} for name, each in content.items()}
    pack(path, {MANIFEST: to_json(manifest)} | content)
    return path


def edit(name, *keys, value):
    """Return a change that sets one value of a JSON file."""

    def change(folder):
        for path in folder.glob(name):
            whole = json.loads(path.read_bytes())
            part = whole
            for key in keys[:-1]:
                part = part[key]
            part[keys[-1]] = value
            path.write_bytes(to_json(whole))

    return change


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def tensors(**changes):
    def change(folder):
        path = folder / "linear__plans/fold_0/model.safetensors"
        save_file(load_file(path) | changes, path)

    return change


def named(**values):
    """Return a change of what the manifest says."""

    def change(folder):
        whole = json.loads((folder / MANIFEST).read_bytes())
        (folder / MANIFEST).write_bytes(to_json(whole | values))

    return change


RUN, WEIGHTS = "linear__plans/fold_*/run.json", "linear__plans/fold_0/model.safetensors"
HOSTILE = {
    "a name that climbs": named(name="Dataset501_/../../x"),
    "a name with a slash": named(modality="a/b"),
    "terminal codes": named(licence="\x1b[2J free"),
    "an unknown key": named(extra=1),
    "a newer version": named(version=99),
    "a negative version": named(version=-1),
    "a selection that climbs": edit("selection.json", "members", value=[{"runs": "../x", "folds": [0], "weight": 1}]),
    "a selection of nothing": edit("selection.json", "members", value=[]),
    "a selection without weight": edit("selection.json", "members", 0, "weight", value=0),
    "terminal codes in words": edit("selection.json", "because", value="\x1b]0;evil\x07"),
    "another plan": edit("selection.json", "plans_digest", value="0"),
    "a clean-up of nothing": edit("selection.json", "clean_up", 0, "output", value="other"),
    "a network of terabytes": edit(RUN, "architecture", "width", value=16384),
    "a network without end": edit(RUN, "architecture", "depth", value=10**9),
    "an input of gigapixels": edit(RUN, "recipe", "input_size", value=[16384, 16384]),
    "images of gigapixels": edit(RUN, "plans", "preprocessing", "image_size", value=[10**6, 10**6]),
    "an unknown decoder": edit(RUN, "recipe", "decoder", value="os.system"),
    "a label of gigabytes": edit(RUN, "plans", "labels", "values", value=[[2**31]]),
    "a scale of zero": edit(RUN, "std", value=[0.0]),
    "a mirror of no axis": edit(RUN, "plans", "mirror_axes", value=["sideways"]),
    "a key twice": write("dataset.json", b'{"a": 1, "a": 2}'),
    "a pit of brackets": write("dataset.json", b"[" * 100_000 + b"]" * 100_000),
    "a pit that can be parsed": write("dataset.json", b"[" * 100 + b"]" * 100),
    "a number of miles": write("dataset.json", b"1" * 5000),
    "weights that are none": write(WEIGHTS, b"\x80\x04cos\nsystem\n."),
    "half of the weights": lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-10]),
    "hashes that are objects": lambda folder: np.save(folder / "seen_in_training.npy", np.array([{}])),
    "hashes that are no array": write("seen_in_training.npy", b"PK\x03\x04"),
    "hashes out of order": lambda folder: np.save(folder / "seen_in_training.npy", np.array([2, 1], np.uint64)),
    "fewer hashes than told": lambda folder: (folder / "seen_in_training.npy").write_bytes(
        (folder / "seen_in_training.npy").read_bytes()[:-1]
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_bundles_are_refused_by_import_and_predict(kind, bundle, images, tmp_path):
    path = rewritten(bundle, tmp_path / "bad.fmseg", HOSTILE[kind])
    empty = workspace_in(tmp_path / "empty")
    with pytest.raises((BadData, UnknownName)) as caught:
        import_bundle(empty, path)
    assert str(caught.value).isprintable() or "\x1b" not in str(caught.value)
    assert [each for each in empty.results.rglob("*") if each.name != ".lock"] == []
    with pytest.raises((BadData, UnknownName)):
        predict(empty, images, tmp_path / "out", model=path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["selection.json", WEIGHTS, "linear__plans/fold_1/run.json", "seen_in_training.npy"])
def test_a_bundle_without_one_of_its_files_is_refused(name, bundle, tmp_path):
    path = rewritten(bundle, tmp_path / "bad.fmseg", lambda folder: None, drop=(name,))
    if name == "selection.json":  # then the folds of the one recipe predict
        with opened(path):
            return
    with pytest.raises(BadData), opened(path):
        pass


def test_a_bundle_imports_no_code_that_nobody_asked_for(bundle, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    monkeypatch.chdir(tmp_path)
    path = rewritten(bundle, tmp_path / "bad.fmseg", edit(RUN, "plugins", value=["evil"]))
    with pytest.raises(UsageError, match="--plugin evil"), opened(path):
        pass
    with pytest.raises(SystemExit, match="ran"), opened(path, ("evil",)):
        pass
