"""From clips to distinct frames: a DICOM cine and a video among the images that are pretrained on."""

import logging
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom.data import get_testdata_file

from fmseg.imaging.looks import looks_of, parse_looks
from fmseg.imaging.readers import read_case
from fmseg.planning.pretraining_rules import MIN_DIFFERENCE
from fmseg.records.cases import CaseFiles
from fmseg.sampling.corpora import collect_corpora
from fmseg.stages.fingerprint import fingerprint
from fmseg.stages.plan import plan
from fmseg.stages.preprocess import preprocess
from fmseg.stages.register import register
from fmseg.workspace import Workspace

FRAMES = 24


def write_clip(path: Path) -> None:
    """A disc that stands still for half of the clip, and then goes through the picture."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (160, 128))
    assert writer.isOpened()
    for number in range(FRAMES):
        frame = np.full((128, 160, 3), 40, np.uint8)
        cv2.circle(frame, (20 + 10 * max(0, number - FRAMES // 2), 64), 24, (200, 200, 200), -1)
        writer.write(frame)
    writer.release()


def of_clip(source: Path) -> tuple[str, Path]:
    if source.name == "video":
        write_clip(source / "a.mp4")
        return "a", source / "a.mp4"
    shutil.copyfile(get_testdata_file("examples_ybr_color.dcm", download=False), source / "a.dcm")
    return "a", source / "a.dcm"


@pytest.mark.parametrize("kind", ["video", "dicom"])
def test_frames_of_a_clip_are_thinned_to_those_that_differ(tmp_path, caplog, kind):
    source = tmp_path / kind
    source.mkdir()
    case, path = of_clip(source)
    (tmp_path / "root").mkdir()
    workspace = Workspace.find(tmp_path / "root")
    (name,) = register(workspace, source, "ultrasound")
    fingerprint(workspace, name, num_processes=0)
    preprocess(workspace, name, plan(workspace, name), num_processes=0)
    (corpus,) = collect_corpora(workspace, [name])
    with caplog.at_level(logging.INFO):
        used = corpus.distinct(MIN_DIFFERENCE)
    frames = read_case(CaseFiles(case, (path,), None)).voxels
    assert corpus.num_images == frames.shape[1]
    assert 1 < len(used) < frames.shape[1]
    assert f"of {frames.shape[1]} images {len(used)} are used" in caplog.text

    looks = [int(look) for look in parse_looks(looks_of(frames))]
    differences = [[(one ^ other).bit_count() for other in looks] for one in looks]
    kept = used.tolist()
    assert all(differences[one][other] >= MIN_DIFFERENCE for one in kept for other in kept if one != other)
    left_out = set(range(len(looks))) - set(kept)
    assert all(min(differences[one][other] for other in kept if other < one) < MIN_DIFFERENCE for one in left_out)
