"""Which images of a set are equal, or look alike: by columns of 8 bytes, for millions of them."""

import os
from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fmseg.imaging.case import Array
from fmseg.imaging.looks import parse_looks
from fmseg.records.cases import key_of
from fmseg.records.fingerprint import CaseFacts

#: bits that two images may differ in and count as nearly equal: saved anew as JPEG, brighter, at half the size
NEAR_BITS = 2
#: images of one patient that were kept last, which the next one is compared with
MAX_COMPARED = 64


@dataclass(frozen=True, slots=True)
class ImageKeys:
    """What is compared of each 2D image, (N,) each: slices and frames count one by one."""

    #: uint64, equal for equal pixels
    content: Array
    #: uint64, alike for images that look alike; 0 where it was not measured
    looks: Array
    #: uint64, equal for images of one patient; of one folder where patients are not known
    patient: Array
    #: uint64, the first 64 bits of the content hash of the whole case
    case: Array

    def take(self, numbers: Array) -> "ImageKeys":
        """Return the keys of some images."""
        return ImageKeys(self.content[numbers], self.looks[numbers], self.patient[numbers], self.case[numbers])


class KeyColumns:
    """The keys of images while their cases are looked at one by one."""

    def __init__(self) -> None:
        self.num_cases = 0
        self._columns = tuple(array("Q") for _ in ImageKeys.__slots__)

    def add(self, fact: CaseFacts) -> None:
        """Take in the images of a case; none if it cannot be read."""
        self.num_cases += 1
        if not fact.shape[0]:
            return
        content, looks, patient, case = self._columns
        whole = int(fact.content_hash[:16], 16)
        owner = key_of(fact.patient if fact.patient != fact.case else f"{os.path.dirname(fact.case)}/")
        found = parse_looks(fact.looks).tolist() if fact.looks else [0] * fact.shape[0]
        for z, look in enumerate(found):
            # of a stack, only whole ones are known to be equal
            content.append(whole if fact.shape[0] == 1 else key_of(f"{fact.content_hash} {z}"))
            looks.append(look)
            patient.append(owner)
            case.append(whole)

    def done(self) -> ImageKeys:
        """Return the columns."""
        return ImageKeys(*(np.array(column, np.uint64) for column in self._columns))


def keys_of(facts: Iterable[CaseFacts]) -> ImageKeys:
    """Return the keys of all images that can be read, in order."""
    columns = KeyColumns()
    for fact in facts:
        columns.add(fact)
    return columns.done()


def is_repeated(content: Array) -> Array:
    """Return (N,) bool: whether an equal image comes before."""
    repeated: Array = np.ones(len(content), bool)
    repeated[np.unique(content, return_index=True)[1]] = False
    return repeated


def is_too_alike(keys: ImageKeys, min_difference: int) -> Array:
    """Return (N,) bool: whether an image before it, of its patient and kept, differs in fewer bits of its look.

    Each is compared with the last 64 kept ones of its patient: frames that are alike lie close together.
    """
    dropped: Array = np.zeros(len(keys.patient), bool)
    order = np.argsort(keys.patient, kind="stable")
    _, first, counts = np.unique(keys.patient[order], return_index=True, return_counts=True)
    for start, count in zip(first[counts > 1].tolist(), counts[counts > 1].tolist(), strict=True):
        members = order[start : start + count]
        kept: list[int] = []
        for index, look in zip(members.tolist(), keys.looks[members].tolist(), strict=True):
            if look and any((look ^ other).bit_count() < min_difference for other in kept[-MAX_COMPARED:]):
                dropped[index] = True
            else:
                kept.append(look)
    return dropped
