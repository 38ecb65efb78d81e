"""A file that is not whole is refused, or gives the pixels of the whole one and says that something is missing."""

from collections.abc import Callable
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from fmseg.imaging.case import BadFile, Case
from fmseg.imaging.readers import read_case
from fmseg.records.dataset import CaseFiles

#: Pillow fills a TIFF of several pages up to a multiple of these, with bytes that nothing refers to
TIFF_PADDING = 16
SIZE = (41, 58)


def soft_noise(seed: int = 0) -> np.ndarray:
    """Return (Y, X) uint8 that packs neither to nothing nor not at all."""
    noise = np.random.default_rng(seed).integers(0, 256, SIZE).astype(np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)


GREY = soft_noise()
COLOUR = np.stack([soft_noise(seed) for seed in range(3)], axis=-1)
VOLUME = np.stack([soft_noise(seed) for seed in range(4)])


def picture(pixels: np.ndarray, **options) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(pixels).save(path, **options)


def pages(**options) -> Callable[[Path], None]:
    first, *others = (Image.fromarray(page) for page in VOLUME)
    return lambda path: first.save(path, save_all=True, append_images=others, **options)


def volume(packed: bool) -> Callable[[Path], None]:
    return lambda path: sitk.WriteImage(sitk.GetImageFromArray(VOLUME), str(path), packed)


def video(codec: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), 10.0, (64, 48))
        for shift in range(12):
            writer.write(cv2.cvtColor(cv2.resize(np.roll(GREY, shift, 0), (64, 48)), cv2.COLOR_GRAY2BGR))
        writer.release()

    return write


def dicom(syntax: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.3.1", "1.2.3"
        data.NumberOfFrames, data.Rows, data.Columns = VOLUME.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 8
        data.HighBit, data.PixelRepresentation, data.PixelData = 7, 0, VOLUME.tobytes()
        if syntax == JPEGBaseline8Bit:
            frames = [cv2.imencode(".jpg", frame)[1].tobytes() for frame in VOLUME]
            data.PixelData, data.file_meta.TransferSyntaxUID = encapsulate(frames), syntax
            data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
        elif syntax != ExplicitVRLittleEndian:
            data.compress(syntax)
        data.save_as(path, enforce_file_format=True)

    return write


WRITERS: dict[str, Callable[[Path], object]] = {
    "grey.png": picture(GREY),
    "colour.png": picture(COLOUR),
    "wide.png": picture(GREY.astype(np.uint16) * 200),
    "bit.png": picture(GREY > 128),
    "plain.jpg": picture(COLOUR),
    "progressive.jpg": picture(GREY, progressive=True),
    "grey.bmp": picture(GREY),
    "colour.bmp": picture(COLOUR),
    "plain.tif": picture(COLOUR),
    "lzw.tif": picture(GREY, compression="tiff_lzw"),
    "deflate.tif": picture(GREY, compression="tiff_adobe_deflate"),
    "packbits.tif": picture(GREY, compression="packbits"),
    "jpeg.tif": picture(COLOUR, compression="jpeg"),
    "pages.tif": pages(),
    "packed_pages.tif": pages(compression="tiff_lzw"),
    "volume.nii": lambda path: nibabel.save(nibabel.Nifti1Image(VOLUME.T, np.eye(4)), path),
    "volume.nii.gz": lambda path: nibabel.save(nibabel.Nifti1Image(VOLUME.T, np.eye(4)), path),
    "plain.mha": volume(False),
    "packed.mha": volume(True),
    "plain.nrrd": volume(False),
    "packed.nrrd": volume(True),
    "array.npy": lambda path: np.save(path, VOLUME),
    "plain.dcm": dicom(ExplicitVRLittleEndian),
    "rle.dcm": dicom(RLELossless),
    "jpeg.dcm": dicom(JPEGBaseline8Bit),
    "j2k.dcm": dicom(JPEG2000Lossless),
    "clip.mp4": video("mp4v"),
    "clip.avi": video("MJPG"),
    "xvid.avi": video("XVID"),
}
#: formats that keep a checksum of their pixels
CHECKED = ("grey.png", "colour.png", "bit.png", "volume.nii.gz", "packed.mha", "packed.nrrd")


def read(path: Path) -> Case:
    return read_case(CaseFiles("case", (path,), None))


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, on the way to an error
@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_is_cut_off_is_never_taken_silently(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path)
    content, whole = path.read_bytes(), read(path)
    lengths = {int(len(content) * share / 10) for share in range(10)} | {len(content) - lost for lost in (1, 4, 20, 70)}
    refused = 0
    for length in sorted(lengths):
        path.write_bytes(content[:length])
        try:
            found = read(path)
        except BadFile as error:
            assert name in str(error)
            refused += 1
            continue
        np.testing.assert_array_equal(found.voxels, whole.voxels)
        # a DICOM file may end where an element does; that something follows, nothing in it says
        assert found.notes != whole.notes or (len(content) - length <= TIFF_PADDING and "pages" in name), length
    assert refused >= 10


@pytest.mark.parametrize("name", CHECKED)
def test_a_changed_byte_is_noticed_where_there_is_a_checksum(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path)
    content, whole = path.read_bytes(), read(path)
    rng = np.random.default_rng(0)
    for place in rng.integers(len(content) // 4, len(content), 25):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << int(rng.integers(8))]) + content[place + 1 :])
        try:
            np.testing.assert_array_equal(read(path).voxels, whole.voxels)
        except BadFile as error:
            assert name in str(error)


def test_a_damaged_comment_of_a_png_is_damage_too(tmp_path):
    """Pillow does not look at what stands behind the pixels."""
    path = tmp_path / "a.png"
    picture(GREY)(path)
    content = path.read_bytes()
    assert content[-12:-4] == b"\0\0\0\0IEND"
    path.write_bytes(content[:-12] + b"\0\0\0\4tEXta\0bc\0\0\0\0" + content[-12:])
    with pytest.raises(BadFile, match="checksum"):
        read(path)


@pytest.mark.parametrize("name", ["plain.mha", "plain.nrrd", "packed.mha", "packed.nrrd", "array.npy", "volume.nii"])
def test_more_pixels_than_the_header_says_are_refused(tmp_path, name):
    """Then one of the two is wrong, and all that follows the first row may lie elsewhere."""
    path = tmp_path / name
    WRITERS[name](path)
    content = path.read_bytes()
    slices = {".npy": (b"(4, ", b"(3, "), ".mha": (b"58 41 4", b"58 41 3"), ".nrrd": (b"58 41 4", b"58 41 3")}
    if path.suffix == ".nii":
        content += b"\1"
    else:
        assert slices[path.suffix][0] in content
        content = content.replace(*slices[path.suffix], 1)
    path.write_bytes(content)
    with pytest.raises(BadFile, match=name):
        read(path)


def test_tiff_pages_in_a_ring_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    pages()(path)
    content = bytearray(path.read_bytes())
    first = int.from_bytes(content[4:8], "little")
    count = int.from_bytes(content[first : first + 2], "little")
    content[first + 2 + 12 * count : first + 6 + 12 * count] = first.to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(BadFile, match="ring"):
        read(path)
