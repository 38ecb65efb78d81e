"""Headers that claim far too much are refused by what they claim, in little memory."""

import gzip
import os
import resource
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from test_wholeness import dicom, read, volume

from fmseg.imaging.case import BadFile

#: more than the process had before; decoders are loaded within it
MAX_GROWTH_MB = 200
REFUSED = 7


def png(path: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(10_000_000))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


def bmp(path: Path) -> None:
    head = struct.pack("<2sIHHI", b"BM", 100, 0, 0, 54)
    path.write_bytes(head + struct.pack("<IiiHHIIiiII", 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(100))


def tiff(path: Path) -> None:
    tags = [(256, 4, 1, 2**31 - 1), (257, 4, 1, 2**31 - 1), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, 2**31 - 1), (279, 4, 1, 8)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0))


def nifti(shape: tuple[int, ...], content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        header = nibabel.Nifti1Header()
        header.set_data_shape(shape)
        header["vox_offset"] = 352
        path.write_bytes(gzip.compress(header.binaryblock + bytes(4) + content))

    return write


def changed(write: Callable[[Path], object], old: bytes, new: bytes) -> Callable[[Path], None]:
    def spoiled(path: Path) -> None:
        write(path)
        content = path.read_bytes()
        assert old in content
        path.write_bytes(content.replace(old, new, 1))

    return spoiled


def packed_bomb(path: Path) -> None:
    """A small volume by its header, whose packed pixels would fill a gigabyte."""
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 4, 4), np.uint8)), str(path), True)
    head = path.read_bytes().partition(b"LOCAL\n")
    pack = zlib.compressobj(1)
    first = pack.compress(bytes(2**20)) + pack.flush(zlib.Z_FULL_FLUSH)
    # what follows a full flush depends on nothing before it, so that it may come again and again
    block = pack.compress(bytes(2**20)) + pack.flush(zlib.Z_FULL_FLUSH)
    path.write_bytes(head[0] + head[1] + first + 1024 * block)


def array(path: Path) -> None:
    head = b"{'descr': '|u1', 'fortran_order': False, 'shape': (60000, 60000, 3), }\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + bytes(100))


def clip(path: Path) -> None:
    dicom(pydicom.uid.ExplicitVRLittleEndian)(path)
    data = pydicom.dcmread(path)
    data.NumberOfFrames, data.Rows, data.Columns = 60_000, 60_000, 60_000
    data.save_as(path)


BOMBS: dict[str, Callable[[Path], object]] = {
    "a.png": png,
    "a.bmp": bmp,
    "a.tif": tiff,
    "shape.nii.gz": nifti((30_000, 30_000, 30_000), b""),
    "content.nii.gz": nifti((8, 8, 8), bytes(2**24)),
    "shape.mha": changed(volume(False), b"58 41 4", b"58000 41000 4000"),
    "shape.nrrd": changed(volume(False), b"58 41 4", b"58000 41000 4000"),
    "content.mha": packed_bomb,
    "a.npy": array,
    "a.dcm": clip,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_little_memory(tmp_path, name):
    path = tmp_path / name
    BOMBS[name](path)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            read(path)
        except BadFile as error:
            code = REFUSED if name in str(error) else 2
        finally:
            os._exit(code)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, status, usage = os.wait4(child, 0)
    assert os.waitstatus_to_exitcode(status) == REFUSED
    assert usage.ru_maxrss - before < MAX_GROWTH_MB * 1024, f"{usage.ru_maxrss // 1024} MB"
