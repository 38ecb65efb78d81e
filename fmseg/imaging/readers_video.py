"""Video clips, MP4 and AVI, through the FFmpeg that OpenCV brings: frames along Z, no sound, no geometry.

A clip must have as many frames as it says: the decoder ends without a word where a file is damaged. Grey clips,
which most ultrasound is, are kept as one channel while they are read, which takes a third of the memory.
"""

import os
from pathlib import Path

import cv2
import numpy as np

from fmseg.imaging.case import Array, BadFile, Geometry
from fmseg.imaging.wholeness import check_video

#: of all frames in three colours; longer clips are refused before they are decoded
MAX_VALUES = 2**31
#: YUV to RGB rounds by up to 3: colours this near to each other are grey
ROUNDING = 4
#: frames at the end that edit lists and odd counters may cost
LOST_AT_END = 2
#: where a file says what it is -> what it may say: anything else, such as a play list of other files, is not opened
MARKS = ((4, b"ftyp"), (0, b"RIFF"))
HEAD_BYTES = 12
EXPORT = "Copy or export it again, or save its frames as PNG."
#: OpenCV's switch for what FFmpeg writes to stderr; -8 is nothing, since damage is told by an exception here
LOG_LEVEL = ("OPENCV_FFMPEG_LOGLEVEL", "-8")


class VideoReader:
    """Reader of clips."""

    endings: tuple[str, ...] = (".mp4", ".avi")

    def read(self, path: Path) -> tuple[Array, Geometry, tuple[str, ...]]:
        """Return voxels (C, Z, Y, X) uint8: C = 1 if all frames are grey, else 3."""
        _check_container(path)
        os.environ.setdefault(*LOG_LEVEL)
        clip = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        try:
            if not clip.isOpened():
                raise BadFile(path, "this video cannot be opened", EXPORT)
            claimed, height, width = (
                int(clip.get(key))
                for key in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)
            )
            if min(claimed, height, width) < 1 or 3 * claimed * height * width > MAX_VALUES:
                problem = f"its header claims {claimed} frames of {height} x {width} pixels"
                raise BadFile(path, problem, "Cut it into shorter clips.")
            voxels = _stacked(path, clip, (claimed, height, width))
        finally:
            clip.release()
        return voxels, Geometry(None, is_2d=False), ()

    def read_label(self, path: Path) -> tuple[Array, Geometry]:
        """Refuse: video compression changes values."""
        raise BadFile(path, "video changes label values", "Save label maps as .nii.gz.")

    def write_label(self, labels: Array, geometry: Geometry, path: Path) -> None:
        """Refuse, likewise."""
        raise BadFile(path, "video changes label values", "Write label maps as .nii.gz.")


def _check_container(path: Path) -> None:
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
        if not any(head[place : place + len(mark)] == mark for place, mark in MARKS):
            raise BadFile(path, "this is no MP4 or AVI video", EXPORT)
        file.seek(0)
        check_video(path, file)


def _stacked(path: Path, clip: cv2.VideoCapture, shape_zyx: tuple[int, int, int]) -> Array:
    """Return all frames (1 or 3, Z, Y, X). Raises BadFile if there are fewer or more than ``shape_zyx`` says."""
    voxels: Array = np.empty((1, *shape_zyx), np.uint8)
    num_frames = 0
    while True:
        there, frame = clip.read()
        if not there:
            break
        if num_frames == shape_zyx[0] or frame.shape[:2] != shape_zyx[1:]:
            raise BadFile(path, "its frames are not those that its header says", EXPORT)
        if len(voxels) == 1 and not _is_grey(frame):
            # the grey frames until here, as colours
            voxels = np.repeat(voxels, 3, axis=0)
        voxels[:, num_frames] = cv2.split(frame)[::-1] if len(voxels) == 3 else cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        num_frames += 1
    if num_frames < max(1, shape_zyx[0] - LOST_AT_END):
        raise BadFile(path, f"it ends after {num_frames} of {shape_zyx[0]} frames", EXPORT)
    return voxels[:, :num_frames]


def _is_grey(frame: Array) -> bool:
    """Return whether a frame (Y, X, 3) has equal colours."""
    blue, green, red = cv2.split(frame)
    return max(cv2.norm(blue, green, cv2.NORM_INF), cv2.norm(green, red, cv2.NORM_INF)) <= ROUNDING
