"""What other programs read is what was predicted."""

import json
import warnings

import numpy as np
import pytest
import tiny_run
from matplotlib.path import Path as Outline
from PIL import Image

from fmseg.errors import NotReady, UnknownName, UsageError
from fmseg.imaging.readers import read_label
from fmseg.stages.export_predictions import export_predictions
from fmseg.stages.predict import predict
from fmseg.workspace import Workspace

NAME = "Dataset501_Discs"
SCHEMES = {"classes": tiny_run.TWO, "regions": tiny_run.NESTED}


def predicted(folder, scheme, images):
    """Predict with a network that draws anything, and return the folder of the label maps."""
    place = Workspace(folder / "raw", folder / "prepared", folder / "results")
    tiny_run.write_run(place.results_of(NAME) / "some__plans" / "fold_0", tiny_run.config(scheme))
    predict(place, images, folder / "predictions")
    rng = np.random.default_rng(0)
    for path in (folder / "predictions").glob("*.png"):  # more telling than what random weights draw
        height, width = np.asarray(Image.open(path)).shape
        drawn = np.kron(rng.integers(0, 3, (8, 8)), np.ones((9, 9)))[:height, :width]
        Image.fromarray(drawn.astype(np.uint8)).save(path)
    return folder / "predictions"


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, size in (("a", (40, 50)), ("b", (50, 40))):
        Image.fromarray(tiny_run.disc(np.random.default_rng(0), size)[0]).save(folder / f"{name}.png")
    return folder


def masks(labels, scheme):
    return {name: np.isin(labels, values) for name, values in zip(scheme.names, scheme.values, strict=True)}


@pytest.mark.parametrize("kind", SCHEMES)
def test_slicer_reads_every_segment_on_its_grid(kind, images, tmp_path):
    import SimpleITK as sitk

    made = predicted(tmp_path, SCHEMES[kind], images)
    done = export_predictions(made, "nrrd", tmp_path / "out")
    assert (done.num_files, done.exit_code) == (2, 0)
    image = sitk.ReadImage(str(tmp_path / "out" / "a.seg.nrrd"))
    header = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}
    voxels = sitk.GetArrayFromImage(image)
    voxels = voxels[..., None] if voxels.ndim == 3 else voxels  # (Z, Y, X, layers)
    labels = np.asarray(Image.open(made / "a.png"))
    for index, (name, mask) in enumerate(masks(labels, SCHEMES[kind]).items()):
        assert header[f"Segment{index}_Name"] == name
        layer, value = int(header[f"Segment{index}_Layer"]), int(header[f"Segment{index}_LabelValue"])
        np.testing.assert_array_equal(voxels[0, ..., layer] == value, mask)


def test_a_volume_keeps_its_geometry_in_slicer(tmp_path):
    import nibabel

    (tmp_path / "in").mkdir()
    affine = np.array([[-0.5, 0, 0, 10], [0, -0.25, 0, 20], [0, 0, 2, 30], [0, 0, 0, 1.0]])
    stack = np.stack([tiny_run.disc(np.random.default_rng(i), (40, 50))[0].T for i in range(3)], axis=-1)
    nibabel.save(nibabel.Nifti1Image(stack, affine), tmp_path / "in" / "v.nii.gz")
    made = predicted(tmp_path, tiny_run.SCHEME, tmp_path / "in")
    export_predictions(made, "nrrd", tmp_path / "out")
    labels, geometry = read_label(made / "v.nii.gz")
    again, same = read_label(tmp_path / "out" / "v.seg.nrrd")
    np.testing.assert_array_equal(again, labels)
    for name in ("spacing_mm", "origin", "direction"):
        np.testing.assert_allclose(getattr(same, name), getattr(geometry, name), atol=1e-6)
    assert export_predictions(made, "png", tmp_path / "png").num_files == 3
    assert sorted(path.name for path in (tmp_path / "png").iterdir()) == [f"v_z000{z}.png" for z in range(3)]


def test_palette_images_hold_the_values_and_show_colours(images, tmp_path):
    made = predicted(tmp_path, tiny_run.TWO, images)
    export_predictions(made, "png", tmp_path / "out")
    image = Image.open(tmp_path / "out" / "b.png")
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image), np.asarray(Image.open(made / "b.png")))
    assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) == 3


@pytest.mark.parametrize("kind", SCHEMES)
def test_geojson_polygons_hold_every_pixel(kind, images, tmp_path):
    made = predicted(tmp_path, SCHEMES[kind], images)
    export_predictions(made, "geojson", tmp_path / "out")
    labels = np.asarray(Image.open(made / "a.png"))
    y, x = np.mgrid[: labels.shape[0], : labels.shape[1]]
    middles = np.stack([x.ravel() + 0.5, y.ravel() + 0.5], axis=1)
    found = {name: np.zeros(labels.shape, bool) for name in SCHEMES[kind].names}
    for feature in json.loads((tmp_path / "out" / "a.geojson").read_text())["features"]:
        outline, *holes = (Outline(ring).contains_points(middles) for ring in feature["geometry"]["coordinates"])
        part = outline & ~np.any([np.zeros_like(outline), *holes], axis=0)
        found[feature["properties"]["classification"]["name"]] |= part.reshape(labels.shape)
    for name, mask in masks(labels, SCHEMES[kind]).items():
        np.testing.assert_array_equal(found[name], mask)


@pytest.mark.parametrize("kind", SCHEMES)
def test_coco_tools_read_every_pixel(kind, images, tmp_path, capsys):
    from pycocotools.coco import COCO

    made = predicted(tmp_path, SCHEMES[kind], images)
    export_predictions(made, "coco", tmp_path / "out", images=images)
    coco = COCO(str(tmp_path / "out" / "coco.json"))
    assert {image["file_name"] for image in coco.imgs.values()} == {"a.png", "b.png"}
    for number, image in coco.imgs.items():
        labels = np.asarray(Image.open(made / image["file_name"]))
        assert (image["height"], image["width"]) == labels.shape
        for category, mask in enumerate(masks(labels, SCHEMES[kind]).values(), start=1):
            parts = coco.loadAnns(coco.getAnnIds(imgIds=number, catIds=category))
            drawn = np.any([np.zeros(labels.shape, bool), *(coco.annToMask(part) > 0 for part in parts)], axis=0)
            np.testing.assert_array_equal(drawn, mask)
            assert sum(part["area"] for part in parts) == mask.sum()
            for part in parts:
                columns = np.flatnonzero(coco.annToMask(part).any(axis=0))
                assert part["bbox"][::2] == [columns[0], columns[-1] + 1 - columns[0]]


def dicom(folder, name, frames, **header):
    """Write an ultrasound image, or a clip, without a frame of reference."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    made = pydicom.Dataset()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    kind = "1.2.840.10008.5.1.4.1.1.6.1" if len(frames) == 1 else "1.2.840.10008.5.1.4.1.1.3.1"
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = kind
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[name])
    made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(entropy_srcs=["1"]), generate_uid(entropy_srcs=["2"])
    made.PatientID, made.PatientName, made.Modality = "P1", "Doe^Jane", "US"
    made.Rows, made.Columns = frames[0].shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelRepresentation = 7, 0
    if len(frames) > 1:
        made.NumberOfFrames = len(frames)
    for key, value in header.items():
        setattr(made, key, value)
    made.PixelData = np.stack(frames).tobytes()
    made.save_as(folder / f"{name}.dcm", enforce_file_format=True)


@pytest.fixture
def clinic(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    frames = [tiny_run.disc(np.random.default_rng(i), (40, 50))[0] for i in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dicom(folder, "still", frames[:1])
        dicom(folder, "old", frames[:1], StudyTime="11:20:00", StudyDate="1997.04.24")
        dicom(folder, "clip", frames)
    return folder


def test_dicom_segmentations_refer_to_their_source_and_hold_every_pixel(clinic, tmp_path):
    import highdicom
    import pydicom

    made = predicted(tmp_path, tiny_run.NESTED, clinic)
    done = export_predictions(made, "dicom", tmp_path / "out", images=clinic)
    assert (done.num_files, done.failed) == (5, [])
    assert [case for case, _ in done.notes] == ["clip"] and "Frame of Reference" in done.notes[0][1]
    for name in ("still", "old"):
        labels, _ = read_label(made / f"{name}.nii.gz")
        source = pydicom.dcmread(clinic / f"{name}.dcm")
        read = highdicom.seg.segread(tmp_path / "out" / f"{name}.dcm")
        plain = pydicom.dcmread(tmp_path / "out" / f"{name}.dcm")
        assert (read.StudyInstanceUID, read.PatientID) == (source.StudyInstanceUID, "P1")
        assert [read.get_segment_description(n).segment_label for n in read.segment_numbers] == ["whole", "core"]
        voxels = read.get_pixels_by_source_instance([source.SOPInstanceUID], ignore_spatial_locations=True)
        wanted = np.stack(list(masks(labels, tiny_run.NESTED).values()), axis=-1)
        np.testing.assert_array_equal(voxels, wanted)
        assert plain.pixel_array.shape[-2:] == labels.shape[1:]
    picture = pydicom.dcmread(tmp_path / "out" / "clip_z0001.dcm")
    assert picture.SOPClassUID.name == "Secondary Capture Image Storage"
    assert picture.pixel_array.shape == (40, 50, 3) and picture.PatientID == "P1"
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert len({pydicom.dcmread(path).SOPInstanceUID for path in (tmp_path / "out").iterdir()}) == len(before)


def test_what_cannot_be_written_is_told(images, tmp_path):
    with pytest.raises(UnknownName, match="Did you mean 'geojson'"):
        export_predictions(images, "geojsn", tmp_path / "out")
    with pytest.raises(NotReady, match=r"predict\.json"):
        export_predictions(images, "png", tmp_path / "out")
    made = predicted(tmp_path, tiny_run.SCHEME, images)
    with pytest.raises(UsageError, match="--images"):
        export_predictions(made, "dicom", tmp_path / "out")
    done = export_predictions(made, "dicom", tmp_path / "out", images=images)
    assert done.exit_code == 5 and "no DICOM image" in done.failed[0][1]
    with pytest.raises(UsageError, match="not empty"):
        export_predictions(made, "png", made)
    with pytest.raises(UsageError, match="another folder"):
        export_predictions(made, "png", made, overwrite=True)
    (made / "a.png").unlink()
    done = export_predictions(made, "png", tmp_path / "out")
    assert [case for case, _ in done.failed] == ["a"] and done.num_files == 1
