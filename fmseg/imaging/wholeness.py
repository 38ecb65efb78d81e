"""Whether a file is there to its end, by what its format says of itself.

Decoders stop as soon as they have their pixels, and some earlier: a PNG without its end, a TIFF whose last page is
gone, half a clip are images to them. A file that lacks a byte was not copied to its end, or is damaged, and nobody
knows what else it lacks. So the parts that a format counts are followed here before anything is decoded, which costs
a hundredth of decoding them.
"""

import math
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fmseg.imaging.case import BadFile

EXPORT = "Copy or export it again."
PNG_HEAD_BYTES = 8
BMP_FILE_HEAD = struct.Struct("<2sIHHI")
#: bytes of a value of each TIFF type
TIFF_TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
#: where the pixels lie, and how many bytes: of strips, of tiles
TIFF_PLACES = ((273, 279), (324, 325))
#: of a packed stream that are unpacked at a time
PART_BYTES = 2**20
#: of a box or chunk of a video: its size and name
BOX_BYTES = 8


def cut_off(path: Path, what: str) -> BadFile:
    """Return the error of a file that ends too early."""
    return BadFile(path, f"it ends too early: {what} is missing", EXPORT)


def check_image(path: Path, content: bytes, file_format: str | None) -> int:
    """Return how many bytes lie behind an image, where its format says where it ends. file_format: Pillow's name.

    Raises BadFile if its bytes lack a part that they count themselves.
    JPEG counts nothing: its decoder notices that the end is missing.
    """
    check = _CHECKS.get(file_format or "")
    return check(path, content) if check else 0


def _check_png(path: Path, content: bytes) -> int:
    """Follow the chunks to the last one; each has a checksum, of which Pillow looks at some."""
    place, name = PNG_HEAD_BYTES, b""
    while name != b"IEND":
        if place + 12 > len(content):
            raise cut_off(path, "its last part")
        length, name = struct.unpack_from(">I4s", content, place)
        end = place + 12 + length
        if end > len(content):
            raise cut_off(path, "its last part")
        (checksum,) = struct.unpack_from(">I", content, end - 4)
        if zlib.crc32(memoryview(content)[place + 4 : end - 4]) != checksum:
            raise BadFile(path, "it is damaged: a checksum in it is wrong", EXPORT)
        place = end
    return len(content) - place


def _check_bmp(path: Path, content: bytes) -> int:
    """Compare the length with that of whole rows; compressed ones are counted by their decoder."""
    offset = BMP_FILE_HEAD.unpack_from(content)[4]
    (head_bytes,) = struct.unpack_from("<I", content, BMP_FILE_HEAD.size)
    is_first_version = head_bytes == 12
    width, height, _, bits = struct.unpack_from("<HHHH" if is_first_version else "<iiHH", content, 18)
    compression = 0 if is_first_version else struct.unpack_from("<I", content, 30)[0]
    if compression in (0, 3) and offset + (width * bits + 31) // 32 * 4 * abs(height) > len(content):
        raise cut_off(path, "a part of its last row")
    return 0


def _check_tiff(path: Path, content: bytes) -> int:
    """Follow the pages, what their tags point to, and the strips or tiles of their pixels."""
    order = "<" if content[:2] == b"II" else ">"
    is_big = content[2:4] in (b"+\0", b"\0+")
    word = "Q" if is_big else "I"
    seen: set[int] = set()
    try:
        (place,) = struct.unpack_from(order + word, content, 8 if is_big else 4)
        while place:
            if place in seen:
                raise BadFile(path, "it is damaged: its pages run in a ring", EXPORT)
            seen.add(place)
            (count,) = struct.unpack_from(order + ("Q" if is_big else "H"), content, place)
            place += 8 if is_big else 2
            tags = dict(_tiff_tags(content, place, min(count, 2**16), order, word))
            for offsets, sizes in TIFF_PLACES:
                starts, lengths = tags.get(offsets, []), tags.get(sizes, [])
                if any(start + length > len(content) for start, length in zip(starts, lengths, strict=False)):
                    raise cut_off(path, "a part of its pixels")
            (place,) = struct.unpack_from(order + word, content, place + count * (20 if is_big else 12))
    except struct.error as error:  # a place behind the end
        raise cut_off(path, "a page") from error
    return 0


def _tiff_tags(content: bytes, place: int, count: int, order: str, word: str) -> Iterator[tuple[int, list[int]]]:
    """Yield the tags that say where pixels lie. Raises struct.error if what a tag points to is behind the end."""
    inline = struct.calcsize(word)
    for start in range(place, place + count * (4 + 2 * inline), 4 + 2 * inline):
        tag, kind, number = struct.unpack_from(f"{order}HH{word}", content, start)
        value = start + 4 + inline
        size = TIFF_TYPES.get(kind, 0) * number
        if size > inline:
            (value,) = struct.unpack_from(order + word, content, value)
        if value + size > len(content):
            raise struct.error
        if any(tag in pair for pair in TIFF_PLACES) and kind in (3, 4, 13, 16):
            yield tag, np.frombuffer(content, f"{order}u{TIFF_TYPES[kind]}", number, value).tolist()


_CHECKS: dict[str, Callable[[Path, bytes], int]] = {"PNG": _check_png, "BMP": _check_bmp, "TIFF": _check_tiff}


def check_video(path: Path, file: BinaryIO) -> None:
    """Follow the boxes of an MP4, or the chunks of an AVI, to the end of the file."""
    length = os.fstat(file.fileno()).st_size
    is_avi = file.read(4) == b"RIFF"
    place = 0
    while place < length:
        file.seek(place)
        head = file.read(BOX_BYTES)
        if len(head) < BOX_BYTES:
            if is_avi:
                return
            raise cut_off(path, "its end")
        if is_avi:
            (size,) = struct.unpack("<4xI", head)
            size += BOX_BYTES
            if head[:4] != b"RIFF":
                return  # what some programs leave behind the last chunk
        else:
            (size,) = struct.unpack(">I4x", head)
            if size == 1:
                size = struct.unpack(">Q", file.read(8).rjust(8, b"\0"))[0]
            if size == 0:
                return  # this box is said to go on to the end
        if size < BOX_BYTES or place + size > length:
            raise cut_off(path, "a part of its frames, or the list of them")
        place += size + (size % 2 if is_avi else 0)


def check_raw(path: Path, found_bytes: int, shape: tuple[int, ...], value_bytes: int) -> None:
    """Refuse a file of bare numbers that are not as many as its header says."""
    wanted = math.prod(shape) * value_bytes
    if found_bytes < wanted:
        raise cut_off(path, f"{wanted - found_bytes:,} of {wanted:,} bytes of its pixels")
    if found_bytes > wanted:
        size = " x ".join(str(length) for length in shape)
        raise BadFile(path, f"it holds {found_bytes:,} bytes of pixels, and {size} need {wanted:,}", EXPORT)


def check_packed(path: Path, data: Path, start: int, wanted_bytes: int) -> None:
    """Unpack a zlib or gzip stream to its checksum, and count its bytes: SimpleITK looks at neither."""
    unpack, found = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32), 0  # 32: of both kinds
    with open(data, "rb") as file:
        file.seek(start)
        try:
            while not unpack.eof and found <= wanted_bytes and (part := file.read(PART_BYTES)):
                while part and found <= wanted_bytes:
                    found += len(unpack.decompress(part, PART_BYTES))
                    part = unpack.unconsumed_tail
            found += len(unpack.flush(PART_BYTES)) if found <= wanted_bytes else 0
        except zlib.error as error:
            raise BadFile(path, f"it is damaged: its pixels cannot be unpacked ({error})", EXPORT) from error
    if found > wanted_bytes:
        raise BadFile(path, f"its packed pixels are more than the {wanted_bytes:,} bytes of its header", EXPORT)
    if found < wanted_bytes or not unpack.eof:
        raise cut_off(path, "a part of its packed pixels")
