"""embed, suggest and probe: features of files, kept by content; what they choose and what they are worth."""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_run
import torch
from PIL import Image
from safetensors.torch import save_file

from fmseg.cli.frame import type_command
from fmseg.errors import NotReady, UnknownName, UsageError
from fmseg.files import sha256_file
from fmseg.inference import embedding
from fmseg.inference.embedding import Embedder
from fmseg.inference.embedding_cache import CONTENT, EmbeddingCache
from fmseg.networks.vit import ViT
from fmseg.records.foundation import CARD, WEIGHTS, Foundation
from fmseg.records.sources import list_cases
from fmseg.stages.embed import embed
from fmseg.stages.probe import probe_foundations
from fmseg.stages.suggest import suggest
from fmseg.workspace import Workspace


def write_checkpoint(workspace: Workspace, name: str = "own", seed: int = 0) -> Path:
    folder = workspace.foundation("ultrasound", name)
    tiny_run.write_foundation(folder, name, [])
    torch.manual_seed(seed)
    save_file(ViT(tiny_run.ARCHITECTURE).state_dict(), folder / WEIGHTS)
    card = Foundation.load(folder / CARD)
    card.evolve(weights_sha256=sha256_file(folder / WEIGHTS)).save(folder / CARD)
    return folder


@pytest.fixture
def workspace(tmp_path):
    place = Workspace(tmp_path / "fmseg_raw", tmp_path / "fmseg_preprocessed", tmp_path / "fmseg_results")
    write_checkpoint(place)
    return place


@pytest.fixture
def images(tmp_path):
    """Five different images, a copy of one below another name, and a broken file."""
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    for index, name in enumerate(["a", "b", "more/c", "more/d", "e"]):
        image, _ = tiny_run.disc(np.random.default_rng(index), (30 + 5 * (index % 2), 50))
        Image.fromarray(image).save(folder / f"{name}.png")
    shutil.copy(folder / "a.png", folder / "copy.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def passes(monkeypatch):
    """Count the images that go through the network."""
    seen = []
    whole = embedding.embed

    def counted(vit, images, indices, **options):
        seen.append(len(indices))
        return whole(vit, images, indices, **options)

    monkeypatch.setattr(embedding, "embed", counted)
    return seen


def test_features_of_a_folder_and_what_is_broken_in_it(workspace, images, tmp_path, capsys):
    out = tmp_path / "features.npz"
    arguments = ("embed", "-i", str(images), "-o", str(out), "--dense")
    assert type_command("--root", str(tmp_path), *arguments) == 5
    assert "broken.png" in capsys.readouterr().out
    with np.load(out, allow_pickle=False) as found:
        assert found["names"].tolist() == ["a", "b", "copy", "e", "more/c", "more/d"]
        assert found["cls"].shape == found["patch_mean"].shape == (6, 16)
        assert found["cls"].dtype == np.float32
        assert found["content"][0] == found["content"][2] != found["content"][1]
        np.testing.assert_array_equal(found["cls"][0], found["cls"][2])
        for number, name in enumerate(found["names"]):
            dense = found[f"dense/{name}"]
            assert dense.shape[1:] == (4, 16) and dense.dtype == np.float16
            np.testing.assert_allclose(dense.mean((0, 1)), found["patch_mean"][number], atol=2e-3)
    again = tmp_path / "again.npz"
    made = embed(workspace, images, again)
    assert made.num_images == 6 and len(made.failed) == 1
    shutil.rmtree(workspace.features())
    embed(workspace, images, out)
    assert out.read_bytes() == again.read_bytes(), "the same with a cache and without"


def test_an_image_goes_through_the_network_once(workspace, images, tmp_path, passes, monkeypatch):
    embed(workspace, images, tmp_path / "one.npz")
    assert sum(passes) >= 5
    passes.clear()
    reads = []
    whole = embedding.read_case
    monkeypatch.setattr(embedding, "read_case", lambda files: reads.append(files.name) or whole(files))
    embed(workspace, images, tmp_path / "two.npz")
    assert not sum(passes) and reads == ["broken"], "an unchanged file is not even read"
    (images / "a.png").rename(images / "z.png")
    os.utime(images / "e.png", ns=(1, 1))
    reads.clear()
    embed(workspace, images, tmp_path / "three.npz")
    assert not sum(passes) and sorted(reads) == ["broken", "e", "z"], "one that was moved is told by its pixels"
    write_checkpoint(workspace, "other", seed=1)
    embed(workspace, images, tmp_path / "four.npz", foundation="other")
    assert sum(passes) >= 5, "another checkpoint sees other things"


def test_a_killed_run_keeps_what_it_has_done(workspace, images, passes, monkeypatch):
    monkeypatch.setattr(embedding, "CHUNK", 2)
    cases = list_cases(images, "ultrasound")
    first = Embedder(workspace.foundation("ultrasound", "own"), workspace.features()).embed(cases)
    next(first), next(first), next(first)
    first.close()
    done = sum(passes)
    list(Embedder(workspace.foundation("ultrasound", "own"), workspace.features()).embed(cases))
    assert sum(passes) == 5 > done > 1


def test_rows_are_found_by_both_keys_over_many_parts(tmp_path):
    rng = np.random.default_rng(0)
    rows = {int(key): (int(key) % 7, rng.normal(size=4)) for key in rng.integers(1, 2**63, 50)}
    cache = EmbeddingCache(tmp_path)
    for number, (key, (content, row)) in enumerate(rows.items()):
        cache.add(key, content, row)
        if number % 20 == 19:
            cache.flush()
            cache = EmbeddingCache(tmp_path)
    for each in (cache, _flushed(cache, tmp_path)):
        for key, (content, row) in rows.items():
            found = each.find(key)
            assert found is not None and found[0] == content
            np.testing.assert_array_equal(found[1], row.astype(np.float32))
        assert {each.find(content, CONTENT)[0] for content in range(7)} == set(range(7))
        assert each.find(12345) is None and each.find(7, CONTENT) is None


def _flushed(cache: EmbeddingCache, folder: Path) -> EmbeddingCache:
    cache.flush()
    return EmbeddingCache(folder)


def test_what_to_label_next_is_unlike_what_is_labelled(workspace, images, tmp_path):
    raw = workspace.raw_dataset("Dataset501_Discs")
    tiny_run.write_dataset(raw, ["p0", "p1"])
    shutil.copy(images / "b.png", raw / "imagesTr" / "p0_0000.png")
    out = tmp_path / "next.csv"
    made = suggest(workspace, images, out, count=10, labelled="Dataset501_Discs")
    rows = list(csv.DictReader(out.read_text().splitlines()))
    chosen = [Path(row["image"]).name for row in rows]
    assert made.num_labelled == 2 and len(made.failed) == 1
    assert "b.png" not in chosen, "it is labelled"
    assert len({"a.png", "copy.png"} & set(chosen)) == 1, "of two equal images one is enough"
    radii = [float(row["radius"]) for row in rows]
    assert radii == sorted(radii, reverse=True) and radii[-1] < 1e-3
    assert Image.open(made.sheet).size[0] > 6 * 160
    one = suggest(workspace, images, out, count=1)
    assert len(one.chosen) == 1 and out.read_text().splitlines()[1].split(",")[2] == ""


def test_fewer_images_than_asked_for_are_explained(workspace, images, tmp_path, caplog):
    out = tmp_path / "next.csv"
    made = suggest(workspace, images, out, count=10)
    left = made.num_images - len(made.chosen)
    assert left, "there is a copy"
    said = f"{len(made.chosen)} of 10 images are chosen: to own, the other {left} are the same"
    assert said in caplog.text
    for copy in images.glob("copy*"):
        copy.unlink()
    made = suggest(workspace, images, out, count=10)
    assert f"{len(made.chosen)} of 10 images are chosen: there are no more" in caplog.text
    caplog.clear()
    suggest(workspace, images, out, count=len(made.chosen))
    assert "chosen" not in caplog.text


def test_probes_of_checkpoints_and_no_patient_on_both_sides(raw_dataset, tmp_path, monkeypatch, capsys):
    from fmseg.stages import probe as module

    workspace = raw_dataset("Dataset501_Discs", num_patients=12)
    raw_dataset("Dataset502_Planes", num_patients=12, task="classification")
    write_checkpoint(workspace)
    assert type_command("--root", str(tmp_path), "plan_and_preprocess", "-d", "501", "502", "-np", "0") == 0
    folds = []
    whole = module.probe
    monkeypatch.setattr(module, "probe", lambda *parts: folds.append(parts[3]) or whole(*parts))
    names = ["Dataset501_Discs", "Dataset502_Planes"]
    rows = probe_foundations(workspace, names, (), num_folds=2, most_cases=300)
    assert [(row.dataset, row.probe) for row in rows] == [
        (names[0], "patch probe, Dice"),
        (names[1], "linear probe, macro F1"),
        (names[1], "kNN, macro F1"),
    ]
    assert all(0 <= row.score <= 1 and 0 <= row.random <= 1 and row.error is not None for row in rows)
    assert len(folds) == 8  # two datasets, two folds, once with random weights
    for fold in folds:
        sides = [{case[:3] for case in side} for side in (fold.train, fold.val)]
        assert sides[0] and sides[1] and not sides[0] & sides[1]
    assert rows == probe_foundations(workspace, names, ["own"], num_folds=2, most_cases=300)
    with pytest.raises(UsageError, match="No foundation checkpoint is called 'nobody'"):
        probe_foundations(workspace, names, ["nobody"], num_folds=1, most_cases=300)


def test_what_is_missing_is_named(workspace, images, tmp_path):
    with pytest.raises(UnknownName, match="Did you mean 'own'"):
        embed(workspace, images, tmp_path / "x.npz", foundation="owns")
    with pytest.raises(UsageError, match=r"written as \.npz"):
        embed(workspace, images, tmp_path / "x.csv")
    shutil.rmtree(workspace.foundations())
    with pytest.raises(NotReady, match="fmseg pretrain"):
        embed(workspace, images, tmp_path / "x.npz")
