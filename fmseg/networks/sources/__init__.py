"""Other people's weights: where they come from, how they are told, and how they become ours.

``source.py`` says what is known of a source, ``dino_kin.py``, ``others.py`` and ``timm_files.py`` declare them all,
``convert.py`` does the work, ``adapt.py`` fits weights to other channels and patches, ``export.py`` goes the way back.
"""

from fmseg.networks.sources import dino_kin, others, timm_files
from fmseg.networks.sources.source import Source, sources

__all__ = ["Source", "dino_kin", "others", "sources", "timm_files"]
