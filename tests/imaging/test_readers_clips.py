"""Clips (pages, videos), arrays, and DICOM files without an ending."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from test_readers_dicom import write as write_dicom

from fmseg.imaging.case import BadFile, Geometry
from fmseg.imaging.readers import read_case, read_label, write_label
from fmseg.inference.inputs import find_inputs, output_name
from fmseg.records.cases import is_image_file, list_images
from fmseg.records.dataset import CaseFiles

STACK = Geometry(None)


def read(path: Path):
    return read_case(CaseFiles("case", (path,), None))


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max, shape).astype(dtype)


@pytest.mark.parametrize("frames", [noise(3, 7, 9), noise(3, 7, 9, 3), noise(2, 7, 9, dtype=np.uint16)])
def test_the_pages_of_a_tiff_are_a_clip(tmp_path, frames):
    pages = [Image.fromarray(frame) for frame in frames]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    case = read(tmp_path / "a.tif")
    wanted = frames[None] if frames.ndim == 3 else np.moveaxis(frames, -1, 0)
    np.testing.assert_array_equal(case.voxels, wanted)
    assert case.geometry == STACK and case.voxels.dtype == frames.dtype


@pytest.mark.parametrize("labels", [noise(3, 7, 9) % 3, noise(2, 7, 9, dtype=np.uint16), noise(1, 7, 9) % 2])
@pytest.mark.parametrize("name", ["a.tif", "a.npy"])
def test_label_maps_of_clips_come_back(tmp_path, labels, name):
    write_label(labels, Geometry(None, is_2d=len(labels) == 1), tmp_path / name)
    found, geometry = read_label(tmp_path / name)
    np.testing.assert_array_equal(found, labels)
    assert geometry.is_2d == (len(labels) == 1)


def test_pages_of_different_sizes_and_too_many_pixels_are_refused(tmp_path, monkeypatch):
    pages = [Image.fromarray(noise(7, 9)), Image.fromarray(noise(7, 10))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(BadFile, match="different sizes"):
        read(tmp_path / "a.tif")
    monkeypatch.setattr("fmseg.imaging.readers_2d.MAX_CLIP_PIXELS", 100)
    pages[0].save(tmp_path / "b.tif", save_all=True, append_images=pages[:1])
    with pytest.raises(BadFile, match="9 x 7 pixels on each of 2 pages"):
        read(tmp_path / "b.tif")


def test_animations_are_refused(tmp_path):
    pages = [Image.fromarray(noise(7, 9)), Image.fromarray(255 - noise(7, 9))]
    pages[0].save(tmp_path / "a.png", save_all=True, append_images=pages[1:])
    with pytest.raises(BadFile, match="2 pages"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ((7, 9), (1, 1, 7, 9)),
        ((7, 9, 3), (3, 1, 7, 9)),
        ((5, 7, 9), (1, 5, 7, 9)),
        ((5, 7, 9, 3), (3, 5, 7, 9)),
        ((2, 5, 7, 9), (2, 5, 7, 9)),
    ],
)
def test_arrays_say_by_their_shape_what_they_are(tmp_path, shape, wanted):
    values = noise(*shape)
    np.save(tmp_path / "a.npy", values)
    case = read(tmp_path / "a.npy")
    assert case.voxels.shape == wanted and case.geometry.is_2d == (wanted[1] == 1)
    assert case.voxels.sum() == values.sum()


def test_types_of_arrays(tmp_path):
    for values, dtype in (
        (noise(4, 5) > 99, "uint8"),
        (noise(4, 5) / 3, "float32"),
        (noise(4, 5).astype(">u2"), "<u2"),
    ):
        np.save(tmp_path / "a.npy", values)
        assert read(tmp_path / "a.npy").voxels.dtype == np.dtype(dtype)


def test_arrays_of_objects_are_never_loaded_and_headers_take_no_memory(tmp_path):
    np.save(tmp_path / "a.npy", np.array({"image": noise(4, 4)}, dtype=object), allow_pickle=True)
    np.save(tmp_path / "b.npy", noise(4, 4))
    header = (tmp_path / "b.npy").read_bytes().replace(b"(4, 4)", b"(9999999, 9999999)".ljust(6))[:200]
    (tmp_path / "c.npy").write_bytes(header)
    np.save(tmp_path / "d.npy", np.zeros((4, 4), complex))
    (tmp_path / "e.npy").write_bytes((tmp_path / "b.npy").read_bytes()[:-3])
    for name in ("a", "c", "d", "e"):
        with pytest.raises(BadFile, match=f"{name}.npy"):
            read(tmp_path / f"{name}.npy")


def write_video(path: Path, frames: np.ndarray) -> None:
    codec = {".mp4": "mp4v", ".avi": "MJPG"}[path.suffix]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10.0, frames.shape[2:0:-1])
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame if frame.ndim == 3 else cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))
    writer.release()


def moving_disc(num_frames: int) -> np.ndarray:
    frames = np.full((num_frames, 48, 64), 40, np.uint8)
    for z, frame in enumerate(frames):
        cv2.circle(frame, (15 + 2 * z, 24), 10, 200, -1)
    return frames


@pytest.mark.parametrize("ending", [".mp4", ".avi"])
def test_a_video_is_a_clip_of_its_frames(tmp_path, ending):
    frames = moving_disc(12)
    write_video(tmp_path / f"a{ending}", frames)
    case = read(tmp_path / f"a{ending}")
    assert case.voxels.shape == (1, 12, 48, 64) and not case.geometry.is_2d
    for found, frame in zip(case.voxels[0], frames, strict=True):
        assert np.abs(found.astype(int) - frame).mean() < 3  # lossy


def test_a_video_that_turns_to_colour_is_colour_throughout(tmp_path):
    frames = np.stack([moving_disc(8)] * 3, axis=-1)
    frames[5:, :20, :20] = (255, 0, 0)  # blue, in OpenCV's order
    write_video(tmp_path / "a.avi", frames)
    voxels = read(tmp_path / "a.avi").voxels
    assert voxels.shape[:2] == (3, 8)
    assert np.abs(voxels[0, 2].astype(int) - voxels[2, 2]).max() <= 4
    assert voxels[2, 6, 5, 5] > 200 and voxels[0, 6, 5, 5] < 60


@pytest.mark.parametrize("ending", [".mp4", ".avi"])
def test_damaged_videos_are_named(tmp_path, ending):
    write_video(tmp_path / f"a{ending}", moving_disc(30))
    content = (tmp_path / f"a{ending}").read_bytes()
    for name, data in (("half", content[: len(content) // 2]), ("text", b"#EXTM3U\n/etc/passwd\n" * 9), ("none", b"")):
        path = tmp_path / f"{name}{ending}"
        path.write_bytes(data)
        with pytest.raises(BadFile, match=path.name):
            read(path)


def test_a_video_that_claims_too_much_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    write_video(tmp_path / "a.avi", moving_disc(6))
    monkeypatch.setattr("fmseg.imaging.readers_video.MAX_VALUES", 1000)
    with pytest.raises(BadFile, match="claims 6 frames of 48 x 64"):
        read(tmp_path / "a.avi")


def test_dicom_files_need_no_ending(tmp_path):
    frames = noise(3, 12, 20)
    for name in ("IM000001", "1.2.840.113619.2.1", "US.1.2.840.1", "DICOMDIR", "a.txt", "README"):
        write_dicom(tmp_path / name, frames)
    (tmp_path / "README").write_text("no DICOM " * 100)
    (tmp_path / "short").write_text("x")
    (tmp_path / "folder").mkdir()
    assert list_images(tmp_path) == ["1.2.840.113619.2.1", "IM000001", "US.1.2.840.1"]
    assert [path.name for path in sorted(tmp_path.iterdir()) if is_image_file(path)] == list_images(tmp_path)
    np.testing.assert_array_equal(read(tmp_path / "IM000001").voxels[0], frames)
    cases = find_inputs(tmp_path).cases
    assert [output_name(case) for case in cases] == [f"{name}.nii.gz" for name in list_images(tmp_path)]
