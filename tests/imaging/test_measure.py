from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy import ndimage

from fmseg.errors import BadData, BadRecord
from fmseg.imaging.intensity import histogram, intensity_of, scale, values_of
from fmseg.imaging.measure import count_components, measure_case, read_facts, refuse_errors, stamp_of
from fmseg.records.dataset import CaseFiles
from fmseg.records.fingerprint import CaseFacts
from fmseg.records.labels import LabelScheme

SCHEME = LabelScheme(names=("head", "organ"), values=((1,), (2,)), painted=(1, 2), has_regions=False, ignore=None)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def measured(
    tmp_path: Path, image: np.ndarray, label: np.ndarray | None, scheme: LabelScheme | None = SCHEME
) -> CaseFacts:
    files = CaseFiles(
        "a",
        (save(tmp_path / "imagesTr" / "a_0000.png", image),),
        None if label is None else save(tmp_path / "labelsTr" / "a.png", label),
    )
    return measure_case(files, scheme, "P1")


def noise(seed: int = 0, size: tuple[int, int] = (20, 30)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, size).astype(np.uint8)


def problems(facts: CaseFacts) -> list[tuple[str, str, str]]:
    return [(finding.severity, finding.where, finding.problem) for finding in facts.findings]


# figures


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32])
@pytest.mark.parametrize("masked", [False, True])
def test_figures_agree_with_numpy(dtype, masked):
    rng = np.random.default_rng(3)
    voxels = rng.integers(0, 250, (2, 11, 13)).astype(dtype)
    if dtype == np.int32:
        voxels *= 10_000_000  # too far apart to be counted into bins
    mask = (rng.random(voxels.shape) < 0.3).astype(np.uint8) if masked else None
    values = voxels.astype(float)[mask > 0 if masked else ...].ravel()
    figures = intensity_of(histogram(voxels, mask))
    wanted = np.percentile(values, [0, 0.5, 50, 99.5, 100])
    got = [figures.minimum, figures.percentile_00_5, figures.median, figures.percentile_99_5, figures.maximum]
    np.testing.assert_allclose(got, wanted)
    np.testing.assert_allclose([figures.mean, figures.std], [values.mean(), values.std()])


@given(arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(0, 4)))
def test_values_are_those_of_numpy(labels):
    assert values_of(labels) == np.unique(labels).tolist()


def test_scaled_figures_are_those_of_the_scaled_image(tmp_path):
    image = noise()
    image[0, :5] = 255
    facts = measured(tmp_path, image, None, None)
    low, high = np.percentile(image, [0.5, 99.5])
    scaled = np.clip((image - low) / (high - low), 0, 1)
    np.testing.assert_allclose(facts.scaled[0], (scaled.mean(), scaled.std()))
    np.testing.assert_allclose(scale(image, (low, high)), scaled, atol=1e-6)


def test_a_nearly_empty_image_is_scaled_between_its_extremes():
    image = np.zeros((1, 50, 50), np.uint8)
    image[0, 0, 0] = 100
    assert histogram(image).window() == (0, 100)


@pytest.mark.parametrize("depth", [1, 3])
def test_components_agree_with_scipy(depth):
    mask = np.random.default_rng(5).random((depth, 40, 40)) < 0.15
    assert count_components(mask) == ndimage.label(mask, structure=np.ones((3, 3, 3)))[1]
    assert count_components(np.zeros((depth, 4, 4), bool)) == 0


# facts


def test_facts_of_a_labelled_case(tmp_path):
    image, label = noise(), np.zeros((20, 30), np.uint8)
    label[2:8, 2:8], label[4:6, 4:6], label[15:18, 20:25] = 1, 2, 1
    facts = measured(tmp_path, image, label)
    assert facts.findings == () and facts.patient == "P1"
    assert (facts.shape, facts.channels, facts.dtype, facts.spacing_mm) == ((1, 20, 30), 1, "uint8", None)
    assert facts.label_counts == ((1, 36 - 4 + 15, 2), (2, 4, 1))
    assert facts.class_counts == ((47, 2), (4, 1))
    assert facts.foreground_intensity[0].mean == pytest.approx(image[label > 0].mean())
    assert CaseFacts.model_validate_json(facts.model_dump_json()) == facts


def test_regions_are_counted_as_unions_and_ignored_pixels_are_no_foreground(tmp_path):
    scheme = LabelScheme(names=("whole", "core"), values=((1, 2), (2,)), painted=(1, 2), has_regions=True, ignore=3)
    label = np.zeros((20, 30), np.uint8)
    label[2:8, 2:5], label[2:8, 5:8], label[12:, :] = 1, 2, 3
    image = noise()
    facts = measured(tmp_path, image, label, scheme)
    assert facts.class_counts == ((36, 1), (18, 1))
    assert facts.foreground_intensity[0].mean == pytest.approx(image[2:8, 2:8].mean())


def test_hashes_follow_pixels_and_labels(tmp_path):
    label = np.ones((20, 30), np.uint8)
    one, other = measured(tmp_path / "a", noise(), label), measured(tmp_path / "b", noise(), label * 2)
    third = measured(tmp_path / "c", noise(1), label)
    assert one.content_hash == other.content_hash != third.content_hash
    assert one.label_hash == third.label_hash != other.label_hash


def test_the_stamp_follows_files_and_labels(tmp_path):
    path = save(tmp_path / "a.png", noise())
    files = CaseFiles("a", (path,), None)
    first = stamp_of(files, None)
    assert first == stamp_of(files, None) != stamp_of(files, SCHEME)
    path.write_bytes(path.read_bytes() + b"x")
    assert stamp_of(files, None) != first


# findings


def test_values_that_are_not_declared_are_listed(tmp_path):
    facts = measured(tmp_path, noise(), (noise() > 100).astype(np.uint8) * 255)
    assert problems(facts) == [("error", "labelsTr/a.png", "the label map holds the values 255; declared are 0, 1, 2")]
    assert "write it as 1" in facts.findings[0].mend


def test_a_label_map_of_another_size_is_an_error(tmp_path):
    facts = measured(tmp_path, noise(), np.ones((30, 20), np.uint8))
    assert problems(facts) == [
        ("error", "labelsTr/a.png", "the label map is (1, 30, 20), its image is (1, 20, 30) (z, y, x)")
    ]


def test_missing_label_maps_matter_only_where_they_are_expected(tmp_path):
    assert problems(measured(tmp_path / "a", noise(), None)) == [
        ("error", "imagesTr/a_0000.png", "the label map of this image is missing")
    ]
    assert measured(tmp_path / "b", noise(), None, None).findings == ()


def test_empty_masks_and_constant_images_are_warnings(tmp_path):
    facts = measured(tmp_path, np.full((20, 30), 7, np.uint8), np.zeros((20, 30), np.uint8))
    assert problems(facts) == [
        ("warning", "imagesTr/a_0000.png", "all pixels have the value 7"),
        ("warning", "labelsTr/a.png", "the label map is empty"),
    ]


def test_tiny_images_are_errors(tmp_path):
    assert "1 x 1 pixels" in measured(tmp_path, np.ones((1, 1), np.uint8), None, None).findings[0].problem


def test_nan_is_an_error_and_does_not_reach_the_figures(tmp_path):
    voxels = np.random.default_rng(0).random((12, 12, 3)).astype(np.float32)
    voxels[0, 0, 0], voxels[0, 0, 1] = np.nan, np.inf
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii.gz")
    facts = measure_case(CaseFiles("a", (tmp_path / "a.nii.gz",), None), None, "a")
    assert facts.findings[0].severity == "error" and "0.46% of the values are NaN" in facts.findings[0].problem
    assert facts.intensity[0].mean == pytest.approx(voxels[np.isfinite(voxels)].mean(), rel=1e-5)
    voxels[:] = np.nan
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "b.nii.gz")
    assert measure_case(CaseFiles("b", (tmp_path / "b.nii.gz",), None), None, "b").intensity == ()


@pytest.mark.parametrize(
    ("severity", "affine"),
    [
        ("error", np.diag([2.0, 1, 1, 1])),
        ("error", np.diag([-1.0, 1, 1, 1])),
        ("warning", np.eye(4) + 5 * np.eye(4, k=3)),
    ],
)
def test_a_label_map_elsewhere_in_space_is_told(tmp_path, severity, affine):
    for seed, (name, placed) in enumerate((("image", np.eye(4)), ("label", affine))):
        voxels = np.random.default_rng(seed).integers(0, 3, (12, 12, 3)).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(voxels, placed), tmp_path / f"{name}.nii.gz")
    facts = measure_case(CaseFiles("a", (tmp_path / "image.nii.gz",), tmp_path / "label.nii.gz"), SCHEME, "a")
    assert [finding.severity for finding in facts.findings] == [severity]


@pytest.mark.parametrize("which", ["image", "label"])
def test_unreadable_files_are_findings(tmp_path, which):
    image, label = save(tmp_path / "image.png", noise()), save(tmp_path / "label.png", noise() // 100)
    (image if which == "image" else label).write_bytes(b"")
    facts = measure_case(CaseFiles("a", (image,), label), SCHEME, "a")
    assert [finding.problem for finding in facts.findings] == ["the file is empty (0 bytes)"]
    assert (facts.shape == (0, 0, 0)) == (which == "image")


def test_all_errors_are_listed_in_one_message(tmp_path):
    findings = [f for i in range(30) for f in measured(tmp_path / str(i), noise(), None).findings]
    with pytest.raises(BadData) as caught:
        refuse_errors(findings)
    message = str(caught.value)
    assert message.startswith("30 things are wrong") and message.count("is missing") == 20 and "10 more" in message
    refuse_errors(f.evolve(severity="warning") for f in findings)


def test_a_broken_line_of_facts_is_named(tmp_path):
    (tmp_path / "cases.jsonl").write_text('{"case": 1}\n')
    with pytest.raises(BadRecord, match=r"cases\.jsonl, line 1"):
        list(read_facts(tmp_path / "cases.jsonl"))
