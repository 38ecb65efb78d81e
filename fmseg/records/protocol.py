"""What a benchmark compares: studies of labelled datasets, each with its recipes, regimes, splits and test images.

Written by people as YAML, or taken by name from ``PRESETS``, the published protocols. A value that stands beside
``studies`` holds for all of them, unless a study says otherwise.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from fmseg.errors import BadRecord, UnknownName
from fmseg.records.record import Part
from fmseg.registry import unknown

NUM_SPLITS = 3
SCRATCH = "scratch"
FOLDS, OFFICIAL = "folds", "official"


class Study(Part):
    """One labelled dataset of a benchmark."""

    #: number, name or part of it
    dataset: str
    #: recipe -> its settings, as ``--set``; empty: those that the plan means
    recipes: dict[str, dict[str, str]] = Field(default_factory=dict)
    #: regime -> number of splits
    regimes: dict[str, int]
    #: what is tested on: ``folds`` (split i: the validation cases of fold i), a share of the cases as ``0.2``, always
    #: the same patients, or ``official`` (imagesTs and its labels)
    test: str = FOLDS
    #: whether cases that lack one of the classes are left out, of training and test
    only_complete: bool = False
    #: further datasets that every network is tested on
    cohorts: tuple[str, ...] = ()

    @property
    def share(self) -> float | None:
        """The share of the cases that is held out; None for folds and official tests. Raises BadRecord."""
        if self.test in (FOLDS, OFFICIAL):
            return None
        try:
            share = float(self.test)
        except ValueError:
            share = 0.0
        if not 0 < share < 1:
            raise BadRecord(
                f"test: {self.test}: give '{FOLDS}', '{OFFICIAL}', or the share of the cases to hold out, as 0.2."
            )
        return share


class Protocol(Part):
    """A benchmark."""

    #: of the folder of its tables
    name: str = Field(default="benchmark", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    #: scratch, and names of foundation checkpoints
    starts: tuple[str, ...] = (SCRATCH,)
    studies: tuple[Study, ...]


#: the protocols of two papers [1, 2], without what they do not say: whose images were held out
#: [1] Ambsdorf et al., General Methods Make Great Domain-specific Foundation Models, 2025. arXiv:2506.19552
#: [2] Burgos-Artizzu et al., Evaluation of deep convolutional neural networks ..., 2020 (Fetal Planes, its own test)
PRESETS: dict[str, dict[str, Any]] = {
    "fass": {
        "studies": [
            {
                "dataset": "FASS",
                "recipes": ["upernet", "unet"],
                "regimes": {"n=20": 5, "10%": 3, "25%": 3, "50%": 3, "full": 3},
                "test": 0.2,
            }
        ]
    },
    "jnu_ifm": {
        "studies": [
            {
                "dataset": "JNU_IFM",
                "recipes": ["upernet", "unet"],
                "regimes": {"p=4x10": 5},
                "test": 0.5,
                "only_complete": True,
            }
        ]
    },
    "fetal_planes": {
        "studies": [
            {
                "dataset": "FetalPlanes",
                "recipes": ["finetune", "linear_probe"],
                "regimes": {"full": 3},
                "test": OFFICIAL,
            }
        ]
    },
}


def read_protocol(path: Path) -> Protocol:
    """Read a YAML file. Raises BadRecord naming the file and what is wrong in it."""
    import yaml

    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadRecord(f"{path}: there is no such file. Write one, or name a preset: {', '.join(PRESETS)}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadRecord(f"{path}: this is not valid YAML ({error}). Mend it at that place.") from error
    if not isinstance(value, dict):
        raise BadRecord(f"{path}: this must have the key 'studies', a list of datasets. See docs/how-to/benchmark.md.")
    return to_protocol({"name": path.stem} | value, str(path))


def find_preset(name: str) -> Protocol:
    """Return a published protocol. Raises UnknownName."""
    if name not in PRESETS:
        raise UnknownName(unknown("protocol", name, PRESETS))
    return to_protocol({"name": name} | PRESETS[name], name)


def to_protocol(value: Mapping[str, Any], source: str) -> Protocol:
    """Return the protocol of a parsed file: shared values spread over the studies, lists written out."""
    own = {key: each for key, each in value.items() if key in Protocol.model_fields and key != "studies"}
    shared = {key: each for key, each in value.items() if key not in Protocol.model_fields}
    studies = value.get("studies")
    if not isinstance(studies, list) or not all(isinstance(each, dict) for each in studies):
        raise BadRecord(f"{source}: 'studies' must be a list, each with a 'dataset'. See docs/how-to/benchmark.md.")
    return Protocol.parse(own | {"studies": [_written_out(shared | each, source) for each in studies]}, source)


def _written_out(study: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return a study with recipes and regimes as dictionaries, and numbers as the text of settings."""
    found = {key: each for key, each in study.items() if key not in ("splits", "settings")}
    settings = _texts(study.get("settings") or {}, source)
    recipes = _dictionary(study.get("recipes"), {})
    found["recipes"] = {name: settings | _texts(own or {}, source) for name, own in recipes.items()}
    if not recipes and settings:
        raise BadRecord(f"{source}: 'settings' need 'recipes' beside them. Name the recipes that they are for.")
    found["regimes"] = _dictionary(study.get("regimes") or ["full"], study.get("splits", NUM_SPLITS))
    for key in ("dataset", "test"):
        if key in found:
            found[key] = str(found[key])
    cohorts = found.get("cohorts", [])
    found["cohorts"] = [str(each) for each in (cohorts if isinstance(cohorts, list) else [cohorts])]
    return found


def _dictionary(value: Any, default: Any) -> dict[str, Any]:
    """Return a dictionary as it is, and of a list, or of one name, the names with a default."""
    if isinstance(value, dict):
        return {str(key): default if each is None else each for key, each in value.items()}
    return {str(each): default for each in ([] if value is None else value if isinstance(value, list) else [value])}


def _texts(settings: Any, source: str) -> dict[str, str]:
    if not isinstance(settings, dict):
        raise BadRecord(f"{source}: settings must be 'name: value', as iterations: 500, not {settings!r}.")
    return {str(key): each if isinstance(each, str) else json.dumps(each) for key, each in settings.items()}
