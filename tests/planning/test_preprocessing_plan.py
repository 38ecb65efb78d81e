import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmseg.errors import UsageError
from fmseg.planning.overview import ONE_GPU, TWO_CORES
from fmseg.planning.preprocessing import Options, fitted, plan_preprocessing, resampled


def test_fetal_heads_on_two_cores(fingerprint):
    plan, because = plan_preprocessing(fingerprint(), TWO_CORES, ("B-mode",))
    assert plan.size_mode == "fit"
    assert plan.image_size in ((176, 256), (192, 272))
    assert (plan.intensity, plan.store_dtype, plan.window) == ("eight_bit", "uint8", ())
    assert plan.mean == (pytest.approx(47 / 255, abs=1e-4),)
    assert plan.std == (pytest.approx(51 / 255, abs=1e-4),)
    assert any("540x800" in reason.because for reason in because)


@settings(max_examples=100)
@given(st.integers(32, 4000), st.integers(32, 4000), st.sampled_from([8, 16]), st.sampled_from([224.0, 448.0]))
def test_a_fitted_size_is_whole_patches_and_never_larger_than_the_image(height, width, patch, side):
    (h, w), _ = fitted((height, width), side, patch, "")
    assert h % patch == w % patch == 0
    assert 2 * patch <= h <= max(height, 2 * patch)
    assert 2 * patch <= w <= max(width, 2 * patch)
    assert h * w <= 1.5 * side**2 + (2 * patch) ** 2
    if 1 / 3 < height / width < 3 and min(h, w) >= 8 * patch:
        assert math.log(h / w) == pytest.approx(math.log(height / width), abs=0.2)


def test_a_gpu_sees_larger_images_where_there_are_some(fingerprint):
    def area(hardware, **changes):
        height, width = plan_preprocessing(fingerprint(**changes), hardware, ("B-mode",))[0].image_size
        return height * width

    assert area(ONE_GPU) == pytest.approx(448**2, rel=0.1)
    assert area(ONE_GPU, median_size=[200, 200]) <= 200**2
    # a corpus of millions has to fit on a disk, and still be as large as the views need
    assert 224**2 * 0.9 < area(ONE_GPU, num_images=2_000_000) < 300**2


@pytest.mark.parametrize(
    ("spacing", "is_3d", "mode"),
    [
        (None, False, "fit"),
        ([1.0, 1.0, 1.0], False, "fit"),
        ([1.0, 0.2, 0.2], False, "spacing"),
        ([2.0, 1.0, 1.0], True, "spacing"),
    ],
)
def test_a_spacing_is_used_where_someone_measured_it(fingerprint, spacing, is_3d, mode):
    plan, _ = plan_preprocessing(fingerprint(median_spacing_mm=spacing, is_3d=is_3d), TWO_CORES, ("MR",))
    assert plan.size_mode == mode
    assert (plan.spacing_mm is None) == (mode == "fit")


def test_resampling_keeps_mm_and_never_refines(fingerprint):
    facts = fingerprint(median_spacing_mm=[3.0, 0.5, 0.6], is_3d=True, median_size=[512, 512])
    spacing, size, _ = resampled(facts, 224.0, 16, "")
    assert spacing[0] / spacing[1] == pytest.approx(0.5 / 0.6, abs=1e-3)
    assert spacing[0] * size[0] == pytest.approx(512 * 0.5, rel=0.08)
    small = fingerprint(median_spacing_mm=[3.0, 0.5, 0.6], is_3d=True, median_size=[100, 120])
    assert resampled(small, 224.0, 16, "")[0] == (0.5, 0.6)


def test_ct_gets_a_window_of_the_foreground(fingerprint):
    bone = {
        "mean": 300.0,
        "std": 150.0,
        "minimum": -1000.0,
        "maximum": 2000.0,
        "percentile_00_5": -100.0,
        "median": 280.0,
        "percentile_99_5": 900.0,
    }
    plan, _ = plan_preprocessing(fingerprint(dtype="int16", foreground_intensity=[bone]), TWO_CORES, ("CT",))
    assert (plan.intensity, plan.window, plan.store_dtype) == ("fixed_window", ((-100.0, 900.0),), "float16")
    assert (plan.mean, plan.std) == ((0.4,), (0.15,))


def test_other_values_are_scaled_by_their_own_percentiles(fingerprint):
    plan, _ = plan_preprocessing(fingerprint(dtype="uint16"), TWO_CORES, ("T1",))
    assert (plan.intensity, plan.mean, plan.std) == ("image_percentiles", (0.2,), (0.22,))


def test_grey_saved_as_rgb_becomes_one_channel(fingerprint):
    plan, because = plan_preprocessing(fingerprint(file_channels=3), TWO_CORES, ("B-mode",))
    assert plan.channels == 1
    assert any("RGB" in reason.because for reason in because)


def test_a_set_without_contrast_has_a_spread_to_divide_by(fingerprint):
    flat = fingerprint().intensity[0].model_dump() | {"std": 0.0}
    plan, _ = plan_preprocessing(fingerprint(intensity=[flat]), TWO_CORES, ("B-mode",))
    assert plan.std[0] > 0


def test_neighbours_are_planned_where_they_are_asked_for_and_there(fingerprint):
    clips, options = fingerprint(is_3d=True, num_images=9000), Options(neighbours=2)
    alone, because = plan_preprocessing(clips, TWO_CORES, ("B-mode",))
    together, reasons = plan_preprocessing(clips, TWO_CORES, ("B-mode",), options)
    assert (alone.neighbours, alone.channels, together.neighbours, together.channels) == (0, 1, 2, 5)
    assert together.mean == 5 * alone.mean and together.std == 5 * alone.std
    said = [reason.because for reason in (*because, *reasons) if reason.key == "preprocessing.neighbours"]
    assert len(said) == 2 and "--set" in said[1]
    with pytest.raises(UsageError, match="neither volumes nor clips"):
        plan_preprocessing(fingerprint(), TWO_CORES, ("B-mode",), options)


def test_cleaning_is_planned_where_it_is_asked_for_and_possible(fingerprint):
    keep, because = plan_preprocessing(fingerprint(), TWO_CORES, ("B-mode",))
    assert (keep.outside, keep.marks) == ("keep", "keep")
    assert {"preprocessing.outside", "preprocessing.marks"} <= {reason.key for reason in because}
    options = Options(outside="black", marks="remove")
    clean, _ = plan_preprocessing(fingerprint(), TWO_CORES, ("B-mode",), options)
    assert (clean.outside, clean.marks, clean.mean) == ("black", "remove", keep.mean)
    inside = fingerprint().intensity[0].evolve(mean=90.0)
    images = fingerprint(task="unlabelled", sector_intensity=[inside.model_dump()])
    cropped, reasons = plan_preprocessing(images, TWO_CORES, ("B-mode",), Options(outside="crop"))
    assert cropped.mean == (pytest.approx(90 / 255, abs=1e-4),)
    assert any("in the scan sectors" in reason.because for reason in reasons)
    for changes, wrong, problem in (
        ({}, Options(outside="crop"), "label maps are not cut"),
        ({"modality": "ct"}, Options(outside="black"), "is for ultrasound"),
        ({"dtype": "uint16"}, Options(marks="remove"), "8-bit"),
    ):
        with pytest.raises(UsageError, match=problem):
            plan_preprocessing(fingerprint(**changes), TWO_CORES, ("B-mode",), wrong)
