"""fmseg: self-configuring foundation models for medical image segmentation."""

from fmseg._version import __version__

__all__ = ["__version__"]
