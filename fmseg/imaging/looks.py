"""What an image looks like, in 64 bits: images that look alike differ in few of them.

The signs of the 64 lowest frequencies of the image at 32 x 32 pixels, measured from their median: a perceptual hash
[1]. Brightness, contrast, noise, JPEG and another size change a few bits, another anatomy about half of them.
[1] Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010.
    https://www.phash.org/docs/pubs/thesis_zauner.pdf
"""

import cv2
import numpy as np

from fmseg.imaging.case import Array

SIDE_PX = 32
#: while an image is this many times larger, it is halved, which OpenCV does 10 times faster than other shrinking
HALVE_FROM = 4
#: frequencies a side; without the first one, which is the mean
FREQUENCIES = 9
NUM_BITS = 64
#: rotations of the bits under which alike images are looked for, each with its own quarter in front
NUM_QUARTERS = 4
#: neighbours under one rotation that each image is compared with
MAX_NEIGHBOURS = 64


def looks_of(voxels: Array) -> str:
    """Return 16 hexadecimal digits for each 2D image of (C, Z, Y, X), one after the other."""
    return "".join(f"{look_of(voxels[:, z]):016x}" for z in range(voxels.shape[1]))


def look_of(image: Array) -> int:
    """Return the 64 bits of one image (C, Y, X)."""
    planes = [_small(plane) for plane in (image[:1] if _has_equal_planes(image) else image)]
    frequencies = cv2.dct(np.mean(planes, axis=0, dtype=np.float32))[:FREQUENCIES, :FREQUENCIES]
    lowest = frequencies.ravel()[1 : NUM_BITS + 1]
    return int.from_bytes(np.packbits(lowest > np.median(lowest)).tobytes(), "big")


def parse_looks(text: str) -> Array:
    """Return the looks of a case's images, (Z,) uint64."""
    return np.frombuffer(bytes.fromhex(text), ">u8").astype(np.uint64)


def num_alike(looks: Array, max_bits: int) -> int:
    """Return how many images, (N,) uint64, look like another one; of a group of alike ones, one is not counted.

    max_bits: at most so many bits differ, below NUM_QUARTERS. Two such looks agree in a whole quarter, so under one
    of four rotations they lie near each other in the sorted order, where each is compared with its neighbours.
    Among very many looks that share a quarter, some pairs are missed.
    """
    different = np.unique(looks)
    is_alike = np.zeros(len(different), bool)
    for quarter in range(NUM_QUARTERS):
        shift = np.uint64(quarter * NUM_BITS // NUM_QUARTERS)
        rotated = (different << shift) | (different >> (np.uint64(NUM_BITS) - shift)) if quarter else different
        order = np.argsort(rotated, kind="stable")
        front = rotated[order] >> np.uint64(NUM_BITS - NUM_BITS // NUM_QUARTERS)
        for step in range(1, min(MAX_NEIGHBOURS, len(order) - 1) + 1):
            shares = front[step:] == front[:-step]
            if not shares.any():
                break
            one, other = different[order[step:]], different[order[:-step]]
            near = shares & (np.bitwise_count(one ^ other) <= max_bits)
            # of a pair, the greater one goes: so one of any group stays
            is_alike[np.maximum(order[step:][near], order[:-step][near])] = True
    return len(looks) - len(different) + int(is_alike.sum())


def similar_pairs(looks: Array, max_bits: int) -> list[tuple[int, int]]:
    """Return the pairs (one, other), one < other, of looks (N,) uint64 that differ in at most ``max_bits``, sorted.

    Found as by ``num_alike``; equal looks are pairs too. Looks of 0 were not measured.
    """
    numbers = np.flatnonzero(looks)
    known = looks[numbers]
    found: set[tuple[int, int]] = set()
    for quarter in range(NUM_QUARTERS):
        shift = np.uint64(quarter * NUM_BITS // NUM_QUARTERS)
        rotated = (known << shift) | (known >> (np.uint64(NUM_BITS) - shift)) if quarter else known
        order = np.argsort(rotated, kind="stable")
        front = rotated[order] >> np.uint64(NUM_BITS - NUM_BITS // NUM_QUARTERS)
        for step in range(1, min(MAX_NEIGHBOURS, len(order) - 1) + 1):
            shares = front[step:] == front[:-step]
            if not shares.any():
                break
            one, other = order[step:], order[:-step]
            near = shares & (np.bitwise_count(known[one] ^ known[other]) <= max_bits)
            pairs = np.sort(np.stack([numbers[one[near]], numbers[other[near]]], axis=1), axis=1)
            found.update(map(tuple, pairs.tolist()))
    return sorted(found)


def _has_equal_planes(image: Array) -> bool:
    return len(image) == 3 and np.array_equal(image[0], image[1]) and np.array_equal(image[0], image[2])


def _small(plane: Array) -> Array:
    """Return (32, 32) float32 of (Y, X); values that are none count as 0."""
    if plane.dtype not in (np.uint8, np.uint16, np.float32):
        plane = plane.astype(np.float32)
    if plane.dtype == np.float32:
        plane = np.nan_to_num(plane, posinf=0.0, neginf=0.0)
    while min(plane.shape) >= HALVE_FROM * SIDE_PX:
        rows, columns = plane.shape[0] // 2, plane.shape[1] // 2
        plane = cv2.resize(plane[: 2 * rows, : 2 * columns], (columns, rows), interpolation=cv2.INTER_AREA)
    small: Array = cv2.resize(plane, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
    return small
