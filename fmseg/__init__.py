"""fmseg: self-configuring foundation models for medical image segmentation and classification.

What can be used in Python stands in ``fmseg/api.py``, and is imported when it is first asked for (PEP 562).
"""

from typing import TYPE_CHECKING, Any

from fmseg._version import __version__

if TYPE_CHECKING:
    from fmseg.api import (
        Classification,
        Predictor,
        Prepared,
        Segmentation,
        Training,
        load_foundation,
        plan_and_preprocess,
        predict,
        pretrain,
        train,
    )

__all__ = [
    "Classification",
    "Predictor",
    "Prepared",
    "Segmentation",
    "Training",
    "__version__",
    "load_foundation",
    "plan_and_preprocess",
    "predict",
    "pretrain",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'fmseg' has no attribute '{name}'")
    from fmseg import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
