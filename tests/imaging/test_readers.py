import gzip
import io
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image, ImageFile

from fmseg.errors import UnknownName
from fmseg.imaging.case import BadFile, Geometry, content_hash, is_grey
from fmseg.imaging.readers import read_case, read_label, readers, write_label
from fmseg.records.dataset import CaseFiles

FLAT = Geometry(None, is_2d=True)
SOMEWHERE = Geometry((2.5, 0.5, 0.25), (-12.0, 3.5, 40.0), (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
RNG = np.random.default_rng(0)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")


def case_of(*paths: Path) -> CaseFiles:
    return CaseFiles("case", paths, None)


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max, shape).astype(dtype)


# what is read is what was written


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif", ".tiff", ".PNG"])
@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 3)])
def test_lossless_images_are_read_as_they_are(tmp_path, ending, shape):
    pixels = noise(*shape)
    Image.fromarray(pixels).save(tmp_path / f"a{ending}")
    case = read_case(case_of(tmp_path / f"a{ending}"))
    wanted = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    np.testing.assert_array_equal(case.voxels[:, 0], wanted)
    assert case.geometry == FLAT and case.voxels.dtype == np.uint8 and case.notes == ()


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_16_bit_grey_keeps_all_bits(tmp_path, ending):
    pixels = noise(7, 9, dtype=np.uint16)
    Image.fromarray(pixels).save(tmp_path / f"a{ending}")
    case = read_case(case_of(tmp_path / f"a{ending}"))
    assert case.voxels.dtype == np.uint16
    np.testing.assert_array_equal(case.voxels[0, 0], pixels)


def test_16_bit_colour_is_read_with_8_bits_and_a_note(tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), noise(7, 9, 3, dtype=np.uint16))
    assert "16-bit" in read_case(case_of(tmp_path / "a.png")).notes[0]


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparency_is_dropped_with_a_note(tmp_path, mode):
    pixels = noise(7, 9, len(mode))
    Image.fromarray(pixels, mode).save(tmp_path / "a.png")
    case = read_case(case_of(tmp_path / "a.png"))
    np.testing.assert_array_equal(case.voxels[:, 0], np.moveaxis(pixels, -1, 0)[:-1])
    assert case.notes == ("its transparency was dropped",)


def test_a_palette_is_colours_in_an_image_and_numbers_in_a_label_map(tmp_path):
    indices = np.array([[0, 1], [2, 1]], np.uint8)
    image = Image.fromarray(indices, "P")
    image.putpalette([0, 0, 0, 255, 0, 0, 10, 20, 30])
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_label(tmp_path / "a.png")[0][0], indices)
    voxels = read_case(case_of(tmp_path / "a.png")).voxels
    assert voxels[:, 0, 1, 0].tolist() == [10, 20, 30]


def test_one_bit_is_0_and_255_in_an_image_and_0_and_1_in_a_label_map(tmp_path):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
    assert read_case(case_of(tmp_path / "a.png")).voxels.ravel().tolist() == [255, 0]
    assert read_label(tmp_path / "a.png")[0].ravel().tolist() == [1, 0]


def test_a_turned_photograph_is_turned_upright(tmp_path):
    pixels = np.zeros((16, 32), np.uint8)
    pixels[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera held on its side
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=100)
    case = read_case(case_of(tmp_path / "a.jpg"))
    assert case.voxels.shape == (1, 1, 32, 16) and "upright" in case.notes[0]
    assert case.voxels[0, 0, :, 15].mean() > 200 > 50 > case.voxels[0, 0, :, 0].mean()


def test_channels_come_from_files_in_order(tmp_path):
    for index in range(3):
        Image.fromarray(np.full((4, 4), index, np.uint8)).save(tmp_path / f"a_{index:04d}.png")
    voxels = read_case(case_of(*(tmp_path / f"a_{index:04d}.png" for index in range(3)))).voxels
    assert voxels[:, 0, 0, 0].tolist() == [0, 1, 2]


# label maps


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
def test_2d_label_maps_round_trip(tmp_path, ending):
    labels = noise(1, 5, 6)
    write_label(labels, FLAT, tmp_path / f"a{ending}")
    again, geometry = read_label(tmp_path / f"a{ending}")
    np.testing.assert_array_equal(again, labels)
    assert geometry == FLAT and [path.name for path in tmp_path.iterdir()] == [f"a{ending}"]


def test_label_values_above_255_get_16_bits(tmp_path):
    labels = np.array([[[0, 300]]])
    write_label(labels, FLAT, tmp_path / "a.png")
    np.testing.assert_array_equal(read_label(tmp_path / "a.png")[0], labels)
    with pytest.raises(BadFile, match="BMP cannot hold"):
        write_label(labels, FLAT, tmp_path / "a.bmp")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mha", ".mhd", ".nrrd"])
def test_volume_label_maps_round_trip_with_their_geometry(tmp_path, ending):
    labels = noise(3, 5, 6)
    write_label(labels, SOMEWHERE, tmp_path / f"a{ending}")
    again, geometry = read_label(tmp_path / f"a{ending}")
    np.testing.assert_array_equal(again, labels)
    assert not geometry.is_2d
    np.testing.assert_allclose(geometry.spacing_mm, SOMEWHERE.spacing_mm)
    np.testing.assert_allclose(geometry.origin, SOMEWHERE.origin)
    np.testing.assert_allclose(geometry.direction, SOMEWHERE.direction, atol=1e-7)
    assert [path.name for path in tmp_path.iterdir()] == [f"a{ending}"]


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
def test_volumes_lie_where_simpleitk_says(tmp_path, ending):
    image = sitk.GetImageFromArray(noise(3, 5, 6, dtype=np.int16))
    image.SetSpacing((0.25, 0.5, 2.5))
    image.SetOrigin((-12.0, 3.5, 40.0))
    angle = 0.3
    image.SetDirection((np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle), 0, 0, 0, 1))
    sitk.WriteImage(image, str(tmp_path / f"a{ending}"))
    case = read_case(case_of(tmp_path / f"a{ending}"))
    np.testing.assert_array_equal(case.voxels[0], sitk.GetArrayFromImage(image))
    np.testing.assert_allclose(case.geometry.spacing_mm, image.GetSpacing()[::-1], rtol=1e-6)
    np.testing.assert_allclose(case.geometry.origin, image.GetOrigin(), rtol=1e-6)
    np.testing.assert_allclose(case.geometry.direction, image.GetDirection(), atol=1e-6)
    write_label(noise(3, 5, 6), case.geometry, tmp_path / f"label{ending}")
    label = sitk.ReadImage(str(tmp_path / f"label{ending}"))
    np.testing.assert_allclose(label.GetDirection(), image.GetDirection(), atol=1e-6)
    np.testing.assert_allclose(label.GetOrigin(), image.GetOrigin(), rtol=1e-6)


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1000.0), ("micron", 0.001), ("mm", 1.0), ("unknown", 1.0)])
def test_the_unit_of_a_nifti_is_heeded_as_by_simpleitk(tmp_path, unit, factor):
    matrix = np.diag([0.25, 0.5, 2.0, 1.0])
    matrix[:3, 3] = 3, 4, 5
    image = nibabel.Nifti1Image(noise(4, 6, 3), matrix)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii.gz")
    case = read_case(CaseFiles("a", (tmp_path / "a.nii.gz",), None))
    theirs = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    assert case.geometry.spacing_mm == pytest.approx((2.0 * factor, 0.5 * factor, 0.25 * factor))
    assert case.geometry.spacing_mm[::-1] == pytest.approx(theirs.GetSpacing())
    assert case.geometry.origin == pytest.approx(theirs.GetOrigin())
    assert bool(case.notes) == (factor != 1)


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
def test_2d_volumes_files_stay_2d(tmp_path, ending):
    sitk.WriteImage(sitk.GetImageFromArray(noise(5, 6)), str(tmp_path / f"a{ending}"))
    case = read_case(case_of(tmp_path / f"a{ending}"))
    assert case.voxels.shape == (1, 1, 5, 6)
    write_label(case.voxels[0], case.geometry, tmp_path / f"b{ending}")
    assert sitk.ReadImage(str(tmp_path / f"b{ending}")).GetSize() == (6, 5)


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_colours_of_a_volume_are_channels(tmp_path, ending):
    pixels = noise(2, 5, 6, 3)
    sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(tmp_path / f"a{ending}"))
    np.testing.assert_array_equal(read_case(case_of(tmp_path / f"a{ending}")).voxels, np.moveaxis(pixels, -1, 0))


def test_whole_numbers_saved_as_floats_are_labels_and_fractions_are_not(tmp_path):
    values = np.array([[[0.0, 2.0]]], np.float32)
    nibabel.save(nibabel.Nifti1Image(values.T, np.eye(4)), tmp_path / "a.nii.gz")
    labels, _ = read_label(tmp_path / "a.nii.gz")
    assert labels.dtype.kind == "i" and labels.ravel().tolist() == [0, 2]
    nibabel.save(nibabel.Nifti1Image(values.T / 4, np.eye(4)), tmp_path / "b.nii.gz")
    with pytest.raises(BadFile, match=r"b\.nii\.gz: the label map holds the value 0\.5\. Label maps hold whole"):
        read_label(tmp_path / "b.nii.gz")


def test_colour_and_jpeg_label_maps_are_refused(tmp_path):
    Image.fromarray(noise(4, 4, 3)).save(tmp_path / "a.png")
    with pytest.raises(BadFile, match="colour image"):
        read_label(tmp_path / "a.png")
    Image.fromarray(noise(4, 4)).save(tmp_path / "a.jpg")
    with pytest.raises(BadFile, match="JPEG"):
        read_label(tmp_path / "a.jpg")


# damaged and hostile files


def damaged(tmp_path: Path, name: str, keep: float) -> Path:
    """Write a good file of that format and cut it."""
    path = tmp_path / name
    if path.suffix in (".png", ".jpg", ".bmp", ".tif"):
        Image.fromarray(noise(64, 64)).save(path)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(noise(8, 32, 32)), str(path))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    return path


@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.9])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif", "a.nii", "a.nii.gz", "a.mha", "a.nrrd"])
def test_truncated_files_are_refused_by_name(tmp_path, name, keep):
    path = damaged(tmp_path, name, keep)
    with pytest.raises(BadFile, match=name):
        read_case(case_of(path))


def test_truncated_files_are_refused_even_if_another_package_allows_them(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(BadFile):
        read_case(case_of(damaged(tmp_path, "a.png", 0.6)))


def test_a_flipped_bit_in_a_gzip_is_noticed(tmp_path):
    path = damaged(tmp_path, "a.nii.gz", 1.0)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # in the checksum
    path.write_bytes(content)
    with pytest.raises(BadFile):
        read_case(case_of(path))


@pytest.mark.parametrize("name", ["a.png", "a.nii.gz", "a.mha", "a.nrrd", "a.tif"])
def test_other_content_and_absent_files_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"This is a text. " * 100)
    for path in (tmp_path / name, tmp_path / f"no_{name}"):
        with pytest.raises(BadFile, match=path.name):
            read_case(case_of(path))


def test_too_many_pixels_are_refused_from_the_header(tmp_path):
    Image.new("1", (10_000, 9_000)).save(tmp_path / "a.png")
    with pytest.raises(BadFile, match="10000 x 9000 pixels"):
        read_case(case_of(tmp_path / "a.png"))
    header = nibabel.Nifti1Header()
    header.set_data_shape((30_000, 30_000, 30_000))
    header["vox_offset"] = 352
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(1000)))
    with pytest.raises(BadFile, match="30000 x 30000 x 30000"):
        read_case(case_of(tmp_path / "a.nii.gz"))


def test_headers_cannot_fetch_pixels_from_elsewhere(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(noise(2, 4, 4)), str(tmp_path / "a.mhd"))
    header = (tmp_path / "a.mhd").read_text()
    assert "ElementDataFile = a.raw" in header
    np.testing.assert_array_equal(read_case(case_of(tmp_path / "a.mhd")).voxels[0], noise(2, 4, 4))
    for target in ("../a.raw", str(tmp_path / "a.raw"), "LIST\na.raw", "a%03d.raw 1 2 1", "missing.raw"):
        (inside / "b.mhd").write_text(header.replace("a.raw", target))
        with pytest.raises(BadFile, match=r"b\.mhd"):
            read_case(case_of(inside / "b.mhd"))
    nrrd = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4 4 2\nencoding: raw\ndata file: ../a.raw\n\n"
    (inside / "b.nrrd").write_text(nrrd)
    with pytest.raises(BadFile, match="beside its header"):
        read_case(case_of(inside / "b.nrrd"))
    (tmp_path / "b.nrrd").write_text(nrrd.replace("../", ""))
    np.testing.assert_array_equal(read_case(case_of(tmp_path / "b.nrrd")).voxels[0], noise(2, 4, 4))


def test_a_voxel_size_of_zero_is_refused(tmp_path):
    image = nibabel.Nifti1Image(noise(4, 4, 4), np.eye(4))
    content = bytearray(image.to_bytes())
    content[80:84] = np.float32(0).tobytes()  # pixdim[1]
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(BadFile, match="voxel size"):
        read_case(case_of(tmp_path / "a.nii"))


def test_channels_of_different_sizes_are_refused(tmp_path):
    Image.fromarray(noise(4, 4)).save(tmp_path / "a_0000.png")
    Image.fromarray(noise(4, 5)).save(tmp_path / "a_0001.png")
    with pytest.raises(BadFile, match=r"a_0001\.png: this channel is 1x4x5, the first one is 1x4x4"):
        read_case(case_of(tmp_path / "a_0000.png", tmp_path / "a_0001.png"))


# names and hashes


def test_readers_are_found_by_ending_or_by_nnunets_names(tmp_path):
    Image.fromarray(noise(4, 4)).save(tmp_path / "a.png")
    files = case_of(tmp_path / "a.png")
    by_ending, by_name = read_case(files), read_case(files, "NaturalImage2DIO")
    np.testing.assert_array_equal(by_ending.voxels, by_name.voxels)
    with pytest.raises(UnknownName, match="Tiff3DIO"):
        read_case(files, "Tiff3DIO")
    with pytest.raises(BadFile, match=r"Convert it to one of: .*\.png"):
        read_case(case_of(tmp_path / "a.xyz"))


# label maps are not written as DICOM: test_readers_dicom.py
@pytest.mark.parametrize("name", [name for name in readers.names() if name != "dicom"])
def test_every_reader_writes_label_maps_that_it_reads(tmp_path, name):
    for ending in readers[name].endings:
        if ending in (".jpg", ".jpeg", ".mp4", ".avi"):
            with pytest.raises(BadFile, match="changes label values"):
                write_label(noise(1, 5, 6), FLAT, tmp_path / f"a{ending}", name)
            continue
        labels = noise(1, 5, 6)
        write_label(labels, FLAT, tmp_path / f"a{ending}", name)
        np.testing.assert_array_equal(read_label(tmp_path / f"a{ending}", name)[0], labels)


def test_equal_pixels_have_equal_hashes_whatever_the_file(tmp_path):
    pixels = noise(7, 9)
    hashes = set()
    for ending in (".png", ".bmp", ".tif"):
        Image.fromarray(pixels).save(tmp_path / f"a{ending}")
        hashes.add(content_hash(read_case(case_of(tmp_path / f"a{ending}")).voxels))
    assert len(hashes) == 1
    changed = pixels.copy()
    changed[0, 0] ^= 1
    others = {
        content_hash(each) for each in (changed[None, None], pixels.T[None, None], pixels[None, None].astype("i2"))
    }
    assert len(others | hashes) == 4


def test_grey_is_three_equal_channels():
    pixels = noise(1, 1, 5, 6)
    grey = np.repeat(pixels, 3, axis=0)
    assert is_grey(grey) and not is_grey(pixels)
    grey[2, 0, 0, 0] ^= 1
    assert not is_grey(grey)


def test_a_bad_file_survives_the_way_between_processes():
    import pickle

    error = pickle.loads(pickle.dumps(BadFile(Path("a.png"), "it is bad", "Mend it.")))
    assert str(error) == "a.png: it is bad. Mend it." and error.mend == "Mend it."


def test_random_bytes_never_raise_anything_but_bad_file(tmp_path):
    good = io.BytesIO()
    Image.fromarray(noise(32, 32)).save(good, "PNG")
    for trial in range(60):
        content = bytearray(good.getvalue())
        for position in RNG.integers(8, len(content), 3):
            content[position] = RNG.integers(256)
        path = tmp_path / f"{trial}.png"
        path.write_bytes(content)
        try:
            assert read_case(case_of(path)).voxels.dtype == np.uint8
        except BadFile as error:
            assert path.name in str(error)
