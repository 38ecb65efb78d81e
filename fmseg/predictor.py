"""One image at a time: the models that predict together, loaded once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from fmseg.errors import BadData, UsageError
from fmseg.workspace import Workspace

if TYPE_CHECKING:
    from fmseg.inference.classes import ClassPredictor
    from fmseg.inference.predictor import Predictor as LabelMapPredictor

DatasetName = int | str
File = str | Path


@dataclass(frozen=True, slots=True)
class Segmentation:
    """What the models draw on one image."""

    #: label values on the image's own grid: (Y, X) for a 2D image, else (Z, Y, X), uint8
    labels: np.ndarray
    #: label value -> class or region
    names: dict[int, str]
    #: mean probability of what was decided, over the foreground
    confidence: float
    #: 1 minus the mean Dice of the networks with each other
    disagreement: float
    #: how the image is unlike those that the models were trained on, in words; empty if it is not
    unlike: str = ""


@dataclass(frozen=True, slots=True)
class Classification:
    """What the models say on one image."""

    #: what was decided: one class, or any number of them where they do not exclude each other
    classes: tuple[str, ...]
    #: class -> probability
    probabilities: dict[str, float]
    #: mean probability of what was decided
    confidence: float
    #: share of the networks that decide otherwise
    disagreement: float
    #: how the image is unlike those that the models were trained on, in words; empty if it is not
    unlike: str = ""


class Predictor:
    """The models that predict together, loaded once, for one image after the other.

    >>> import fmseg
    >>> predictor = fmseg.Predictor.from_bundle("heads.fmseg")
    >>> answer = predictor.predict("new_images/scan_1.png")
    >>> answer.labels.shape, answer.names
    ((40, 50), {1: 'disc'})
    """

    def __init__(self, networks: "LabelMapPredictor | ClassPredictor", name: str) -> None:
        self.networks = networks
        #: of the dataset that they have learned from
        self.name = name

    @classmethod
    def from_bundle(cls, path: File, *, mirror: bool = True, plugins: Sequence[str] = ()) -> Self:
        """Load the models of a .fmseg file; it may import ``plugins`` and no others. Raises BadData."""
        from fmseg.inference.bundles import opened
        from fmseg.inference.choice import load_choice

        with opened(Path(path), plugins) as results:
            return cls(load_choice(results).predictor(mirror=mirror), results.name)

    @classmethod
    def from_workspace(
        cls, dataset: DatasetName | None = None, *, root: File | None = None, mirror: bool = True
    ) -> Self:
        """Load what ``train`` chose; dataset: needed where several are trained."""
        from fmseg.inference.choice import load_choice
        from fmseg.inference.trained import trained_results

        workspace = Workspace.find(None if root is None else Path(root))
        results = trained_results(workspace, None if dataset is None else str(dataset))
        return cls(load_choice(results).predictor(mirror=mirror), results.name)

    def predict(
        self, image: np.ndarray | File | Sequence[File], *, spacing_mm: Sequence[float] | None = None
    ) -> Segmentation | Classification:
        """Predict one image: an array, or a file (several, if each holds a channel).

        An array is (Y, X), or (Y, X, 3) for colours, or (C, Z, Y, X), in the type of the images that were trained on
        (uint8 for most). spacing_mm: (y, x) or (z, y, x), needed where the models were trained in millimetres, for
        arrays and for files that have none; it goes before that of a file.
        Raises BadData, naming the mend, for what does not fit.
        """
        from fmseg.imaging.case import Case, Geometry
        from fmseg.imaging.readers import read_case
        from fmseg.inference.predictor import Predictor as LabelMapPredictor
        from fmseg.inference.unlike import unlike
        from fmseg.records.dataset import CaseFiles

        if isinstance(image, np.ndarray):
            # nobody knows how an array lies
            case = Case("image", _voxels(image), Geometry(None, direction=(0.0,) * 9, is_2d=image.ndim < 4))
        else:
            files = tuple(Path(each) for each in ([image] if isinstance(image, str | Path) else image))
            case = read_case(CaseFiles(files[0].name, files, None), self.networks.plans.reader)
        if spacing_mm is not None:
            case = replace(case, geometry=replace(case.geometry, spacing_mm=_spacing(spacing_mm)))
        elif case.geometry.spacing_mm is None and self.networks.plans.preprocessing.size_mode == "spacing":
            raise BadData(
                f"{case.name}: the models were trained in mm, and this image has no pixel size. Give it to predict(), "
                "in mm, as in spacing_mm=(0.12, 0.12)."
            )
        how = unlike(case, [member.config for member in self.networks.members])
        if isinstance(self.networks, LabelMapPredictor):
            done = self.networks.predict_case(case)
            scheme = self.networks.scheme
            names = dict(zip(scheme.painted, scheme.names, strict=True))
            labels = done.labels[0] if case.geometry.is_2d else done.labels
            return Segmentation(labels, names, done.confidence, done.disagreement, how)
        verdict = self.networks.predict_case(case)
        probabilities = dict(zip(self.networks.scheme.names, map(float, verdict.probabilities), strict=True))
        return Classification(verdict.classes, probabilities, verdict.confidence, verdict.disagreement, how)


def _voxels(image: np.ndarray) -> np.ndarray:
    """Return an array as (C, Z, Y, X)."""
    if image.ndim == 2:
        return image[None, None]
    if image.ndim == 3 and image.shape[2] == 3:
        return np.ascontiguousarray(np.moveaxis(image, 2, 0)[:, None])
    if image.ndim == 4:
        return image
    raise BadData(f"An image of shape {image.shape}: give (Y, X), (Y, X, 3), or (C, Z, Y, X) with all four axes.")


def _spacing(spacing_mm: Sequence[float]) -> tuple[float, float, float]:
    values = [1.0] * (3 - len(spacing_mm)) + [float(value) for value in spacing_mm]
    if len(values) != 3:
        raise UsageError(f"spacing_mm is (y, x) or (z, y, x), not {tuple(spacing_mm)}.")
    return values[0], values[1], values[2]
