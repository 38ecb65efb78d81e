from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, UltrasoundMultiFrameImageStorage

from fmseg.imaging.case import BadFile
from fmseg.imaging.readers import read_case, read_label
from fmseg.records.dataset import CaseFiles

FRAMES, ROWS, COLUMNS = 3, 12, 20


def read(path):
    return read_case(CaseFiles("case", (path,), None))


def own_file(name):
    """Return a test file that comes with pydicom; files that it would have to fetch are not asked for."""
    return Path(get_testdata_file(name, download=False))


def region(delta_cm, **other):
    item = pydicom.Dataset()
    values = {
        "PhysicalUnitsXDirection": 3,
        "PhysicalUnitsYDirection": 3,
        "RegionSpatialFormat": 1,
        "RegionDataType": 1,
        "PhysicalDeltaX": delta_cm[1],
        "PhysicalDeltaY": delta_cm[0],
    }
    for name, value in (values | other).items():
        setattr(item, name, value)
    return item


def write(path, pixels, regions=(), syntax=ExplicitVRLittleEndian, **fields):
    """Write frames (Z, Y, X) or (Z, Y, X, 3) as an ultrasound clip."""
    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    data.Modality, data.PatientName, data.PatientID = "US", "Secret^Name", "secret-number"
    data.NumberOfFrames, data.Rows, data.Columns = pixels.shape[:3]
    data.SamplesPerPixel = 3 if pixels.ndim == 4 else 1
    data.PhotometricInterpretation = "RGB" if pixels.ndim == 4 else "MONOCHROME2"
    if pixels.ndim == 4:
        data.PlanarConfiguration = 0
    data.BitsAllocated = data.BitsStored = 8 * pixels.dtype.itemsize
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, 0
    data.SequenceOfUltrasoundRegions = list(regions)
    for name, value in fields.items():
        setattr(data, name, value)
    data.PixelData = pixels.tobytes()
    if syntax is not ExplicitVRLittleEndian:
        data.compress(syntax)
    data.save_as(path, enforce_file_format=True)
    return path


def made_pixels(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_a_grey_clip_comes_back_as_it_was_written(tmp_path, dtype, syntax):
    pixels = made_pixels(FRAMES, ROWS, COLUMNS, dtype=dtype)
    case = read(write(tmp_path / "clip.dcm", pixels, [region((0.02, 0.03))], syntax))
    np.testing.assert_array_equal(case.voxels, pixels[None])
    assert case.voxels.dtype == dtype
    assert not case.geometry.is_2d
    assert case.geometry.spacing_mm == pytest.approx((1, 0.2, 0.3))


def test_colours_become_channels(tmp_path):
    pixels = made_pixels(1, ROWS, COLUMNS, 3)
    case = read(write(tmp_path / "image.dcm", pixels))
    np.testing.assert_array_equal(case.voxels, pixels.transpose(3, 0, 1, 2))
    assert case.geometry.is_2d


def test_white_that_means_nothing_is_turned_into_black(tmp_path):
    pixels = made_pixels(1, ROWS, COLUMNS)
    case = read(write(tmp_path / "image.dcm", pixels, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(case.voxels, 255 - pixels[None])
    assert any("inverted" in note for note in case.notes)


def test_only_regions_of_tissue_say_the_pixel_size(tmp_path):
    pixels = made_pixels(1, ROWS, COLUMNS)
    doppler = region((0.5, 0.001), RegionDataType=3, RegionSpatialFormat=3, PhysicalUnitsXDirection=4)
    case = read(write(tmp_path / "one.dcm", pixels, [doppler, region((0.02, 0.02))]))
    assert case.geometry.spacing_mm == pytest.approx((1, 0.2, 0.2))
    case = read(write(tmp_path / "none.dcm", pixels, [doppler]))
    assert case.geometry.spacing_mm is None


def test_two_regions_of_different_scale_leave_the_size_open_and_are_told(tmp_path):
    regions = [region((0.02, 0.02)), region((0.01, 0.01))]
    case = read(write(tmp_path / "two.dcm", made_pixels(1, ROWS, COLUMNS), regions))
    assert case.geometry.spacing_mm is None
    assert any("different pixel sizes" in note for note in case.notes)


def test_nothing_of_the_patient_leaves_the_reader(tmp_path):
    case = read(write(tmp_path / "image.dcm", made_pixels(1, ROWS, COLUMNS)))
    assert "ecret" not in repr(case)


def test_a_header_that_claims_too_much_is_refused_before_it_costs_memory(tmp_path):
    pixels = made_pixels(1, ROWS, COLUMNS)
    path = write(tmp_path / "bomb.dcm", pixels)
    data = pydicom.dcmread(path)
    data.Rows = data.Columns = 65535
    data.save_as(path)
    with pytest.raises(BadFile, match="claims 1 x 65535 x 65535 x 1"):
        read(path)


def test_half_a_file_is_refused(tmp_path):
    path = write(tmp_path / "half.dcm", made_pixels(FRAMES, ROWS, COLUMNS))
    path.write_bytes(path.read_bytes()[: -FRAMES * ROWS * COLUMNS // 2])
    with pytest.raises(BadFile, match=r"half\.dcm"):
        read(path)


def test_reports_and_label_maps_are_refused_in_words(tmp_path):
    with pytest.raises(BadFile, match="holds no pixels"):
        read(own_file("test-SR.dcm"))
    with pytest.raises(BadFile, match=r"PNG or \.nii\.gz"):
        read_label(write(tmp_path / "label.dcm", made_pixels(1, ROWS, COLUMNS)))


def test_a_real_cine_clip():
    case = read(own_file("examples_ybr_color.dcm"))
    assert case.voxels.shape == (3, 30, 240, 320)
    assert case.geometry.spacing_mm == pytest.approx((1, 0.5105, 0.5105), rel=1e-3)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("MR_small.dcm", "MR_small_bigendian.dcm"),
        ("MR_small.dcm", "MR_small_RLE.dcm"),
        ("MR_small.dcm", "MR_small_jp2klossless.dcm"),
        ("MR_small.dcm", "MR_small_jpeg_ls_lossless.dcm"),
        ("SC_rgb_rle.dcm", "SC_rgb_gdcm_KY.dcm"),
        ("JPGExtended.dcm", "JPEG-lossy.dcm"),
    ],
)
def test_the_same_image_in_another_transfer_syntax_has_the_same_values(one, other):
    first, second = read(own_file(one)), read(own_file(other))
    assert first.voxels.dtype == second.voxels.dtype
    assert first.geometry == second.geometry
    np.testing.assert_array_equal(first.voxels, second.voxels)


def test_regions_say_where_the_scan_lies(tmp_path):
    places = {"RegionLocationMinX0": 2, "RegionLocationMinY0": 3, "RegionLocationMaxX1": 9, "RegionLocationMaxY1": 7}
    flow = region((0.1, 0.1), RegionDataType=2, **(places | {"RegionLocationMaxX1": 99}))
    spectrum = region((0.1, 0.1), RegionSpatialFormat=3, **(places | {"RegionLocationMaxY1": 11}))
    pixels = np.zeros((1, ROWS, COLUMNS), np.uint8)
    write(tmp_path / "a.dcm", pixels, [region((0.1, 0.1), **places), spectrum])
    write(tmp_path / "b.dcm", pixels, [region((0.1, 0.1), **places), flow])
    write(tmp_path / "c.dcm", pixels)
    boxes = [read(tmp_path / f"{name}.dcm").geometry.scan_box for name in "abc"]
    assert boxes == [(3, 2, 8, 10), (3, 2, 8, COLUMNS), None]
