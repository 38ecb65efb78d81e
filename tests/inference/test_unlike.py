import csv
from dataclasses import replace

import numpy as np
import pytest
import tiny_run
from PIL import Image

from fmseg.errors import BadRecord
from fmseg.imaging.case import Case, Geometry
from fmseg.imaging.measure import measure_case
from fmseg.imaging.readers import read_case
from fmseg.inference.unlike import MAX_VALUES, UNLIKE, look_of, look_of_facts, ranges_of, unlike
from fmseg.records.dataset import CaseFiles
from fmseg.records.ranges import Ranges
from fmseg.stages.predict import predict
from fmseg.workspace import Workspace

NAME = "Dataset501_Discs"
MODES = {
    "eight_bit": tiny_run.PREPROCESSING,
    "image_percentiles": tiny_run.PREPROCESSING.evolve(intensity="image_percentiles"),
    "fixed_window": tiny_run.PREPROCESSING.evolve(intensity="fixed_window", window=((0.0, 255.0),)),
}
#: of slices that follow each other to the left
SAGITTAL = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def flat(seed):
    image, _ = tiny_run.disc(np.random.default_rng(seed), (60 + seed % 5, 80))
    return Case(f"c{seed}", image[None, None], Geometry((1.0, 0.2, 0.2), is_2d=True))


def volume(seed):
    image = np.stack([tiny_run.disc(np.random.default_rng((seed, z)), (40, 60))[0] for z in range(8)])
    return Case(f"v{seed}", image[None], Geometry((2.0, 0.5, 0.5)))


def config_of(cases, preprocessing=tiny_run.PREPROCESSING):
    ranges = ranges_of((case.name, look_of(case, preprocessing)) for case in cases)
    plans = tiny_run.plans().evolve(preprocessing=preprocessing.model_dump())
    return tiny_run.config(plans=plans.model_dump(mode="json"), ranges=ranges.model_dump(mode="json"))


def spaced(case, factor):
    return replace(
        case, geometry=replace(case.geometry, spacing_mm=tuple(factor * s for s in case.geometry.spacing_mm))
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", [1, 3, 30])
@pytest.mark.parametrize("make", [flat, volume])
def test_neither_training_cases_nor_others_of_their_kind_are_noted(make, number, mode):
    config = config_of([make(seed) for seed in range(number)], MODES[mode])
    for seed in range(number + 10):
        assert unlike(make(seed), [config]) == ""


@pytest.mark.parametrize("mode", MODES)
def test_what_is_inverted_is_noted_however_intensities_are_scaled(mode):
    config = config_of([flat(seed) for seed in range(30)], MODES[mode])
    assert "brightness" in unlike(replace(flat(40), voxels=255 - flat(40).voxels), [config])


def test_each_way_to_be_unlike_is_told_with_what_was_trained_on():
    config = config_of([flat(seed) for seed in range(30)])
    case = flat(40)
    told = unlike(spaced(case, 0.05), [config])
    assert told == "pixel size 0.01 mm (trained on 0.2)"
    assert unlike(replace(case, voxels=np.ascontiguousarray(case.voxels.swapaxes(2, 3))), [config]).startswith(
        "height by width 1.33 (trained on 0.75 to 0.8)"
    )
    assert "mean side" in unlike(replace(case, voxels=case.voxels[:, :, ::4, ::4]), [config])
    assert "brightness" in unlike(replace(case, voxels=case.voxels // 4), [config])
    colour = np.repeat(case.voxels, 3, axis=0)
    assert unlike(replace(case, voxels=colour), [config]) == ""
    colour[0, 0, :9] = 0
    assert unlike(replace(case, voxels=colour), [config]) == "coloured (trained on grey)"


def test_volumes_along_another_axis_are_noted_where_the_file_says_how_it_lies():
    config = config_of([volume(seed) for seed in range(10)])
    case = volume(20)
    turned = replace(case, geometry=replace(case.geometry, direction=SAGITTAL))
    assert unlike(turned, [config]) == "sagittal slices (trained on axial)"
    # without a size in mm, a file says nothing of axes either
    assert unlike(replace(turned, geometry=replace(turned.geometry, spacing_mm=None)), [config]) == ""
    array = np.ascontiguousarray(case.voxels.transpose(0, 3, 2, 1))
    transposed = Case("t", array, replace(case.geometry, spacing_mm=(0.5, 0.5, 2.0)))
    assert "pixel height by width 0.25 (trained on 1)" in unlike(transposed, [config])
    assert "slices 60 (trained on 8)" in unlike(transposed, [config])


def test_single_images_and_clips_are_one_kind():
    images, volumes = [flat(seed) for seed in range(10)], [volume(seed) for seed in range(10)]
    assert unlike(Case("c", np.repeat(images[0].voxels, 50, axis=1), images[0].geometry), [config_of(images)]) == ""
    assert unlike(replace(volumes[0], voxels=volumes[0].voxels[:, :1]), [config_of(volumes)]) == ""


def test_one_odd_patient_neither_widens_the_ranges_nor_stands_in_them():
    usual = [flat(seed) for seed in range(30)]
    odd = spaced(replace(usual[0], name="odd", voxels=255 - usual[0].voxels), 123.0)
    config = config_of([*usual, odd])
    assert config.ranges.sizes["pixel size"] == (0.2, 0.2)
    assert config.ranges.tones["brightness"][1] < 0.4 < look_of(odd, tiny_run.PREPROCESSING).tones["brightness"]
    told = unlike(odd, [config])
    assert "pixel size" in told and "brightness" in told
    turned = [replace(volume(0), name="odd", geometry=Geometry((2.0, 0.5, 0.5), direction=SAGITTAL))]
    assert config_of([volume(seed) for seed in range(5)] + turned).ranges.planes == ("axial",)


def test_measured_files_and_cases_in_memory_look_alike(tmp_path):
    Image.fromarray(flat(0).voxels[0, 0]).save(tmp_path / "a.png")
    files = CaseFiles("a", (tmp_path / "a.png",), None, (0.2, 0.2))
    for preprocessing in MODES.values():
        assert look_of(read_case(files), preprocessing) == look_of_facts(measure_case(files, None, "p"), preprocessing)


def test_a_part_of_a_large_image_tells_what_all_of_it_does():
    large = np.random.default_rng(0).normal(500, 50, (1, 6, 600, 700)).astype(np.float32)
    assert large.size > 2 * MAX_VALUES
    large[0, 0, 0, 0] = np.nan
    look = look_of(Case("l", large, Geometry((1.0, 1.0, 1.0))), MODES["fixed_window"].evolve(window=((0, 1000),)))
    assert look.tones["brightness"] == pytest.approx(0.5, abs=0.01)
    assert look.tones["brightest parts"] == pytest.approx(0.629, abs=0.01)


def test_images_without_a_number_or_of_one_value_break_nothing():
    config = config_of([flat(seed) for seed in range(5)])
    for voxels in (np.full((1, 1, 60, 80), np.nan, np.float32), np.zeros((1, 1, 60, 80), np.uint8)):
        unlike(replace(flat(0), voxels=voxels), [config])


def test_models_without_ranges_note_nothing_and_their_records_stay_as_they_were():
    before, now = tiny_run.config(), config_of([flat(0)])
    assert "ranges" not in before.model_dump(mode="json")
    assert before.determining() == now.evolve(plans=before.plans.model_dump(mode="json")).determining()
    assert unlike(volume(0), [before]) == ""
    assert unlike(volume(0), [before, now])


def test_ranges_hold_finite_numbers_above_nothing():
    ranges = config_of([flat(0)]).ranges
    for wrong in ({"sizes": {"pixel size": [0.0, 1.0]}}, {"tones": {"contrast": [0.0, float("inf")]}}):
        with pytest.raises(BadRecord):
            Ranges.parse(ranges.model_dump(mode="json") | wrong, "run.json")


@pytest.mark.parametrize("kind", ["report.csv", "predictions.csv"])
def test_predict_notes_what_is_unlike_and_warns_once(kind, tmp_path, caplog):
    place = Workspace(tmp_path / "raw", tmp_path / "prepared", tmp_path / "results")
    ranges = config_of([flat(seed) for seed in range(30)]).ranges.model_dump(mode="json")
    run = tiny_run.config() if kind == "report.csv" else tiny_run.class_config()
    tiny_run.write_run(place.results_of(NAME) / "linear__plans" / "fold_0", run.evolve(ranges=ranges))
    images, out = tmp_path / "in", tmp_path / "out"
    images.mkdir()
    for seed in range(4):
        Image.fromarray(flat(seed).voxels[0, 0]).save(images / f"c{seed}.png")
    Image.fromarray(255 - flat(0).voxels[0, 0]).save(images / "b.png")
    (images / "broken.png").write_bytes(b"nothing")
    report = predict(place, images, out)
    assert report.num_unlike == report.as_dict()["num_unlike"] == 1 and report.exit_code == 5
    with open(out / kind, newline="") as file:
        notes = {row["case"]: row["note"] for row in csv.DictReader(file)}
    assert not any(UNLIKE in note for case, note in notes.items() if case != "b")
    assert UNLIKE + "brightness" in notes["b"]
    warning = "1 of 5 images is unlike those that the models were trained on: see 'note' in " + kind
    assert caplog.text.count("unlike those that") == 1 and warning in caplog.text and "For example b: b" in caplog.text
    # a run that goes on counts the lines of the first one too
    caplog.clear()
    assert predict(place, images, out).num_unlike == 1
    assert warning in caplog.text
