"""Any folder tree of images without labels: read where they lie."""

from pathlib import Path

from fmseg.files import write_json
from fmseg.records.cases import walk_images
from fmseg.records.dataset import declare_unlabelled
from fmseg.stages.convert.layout import Layout, Skipped, layouts, rest_of


def bring(source: Path, target: Path) -> Skipped:
    """Fill ``target`` with one small file."""
    write_json(target / "dataset.json", declare_unlabelled(source))
    return rest_of(source, walk_images(source), "not a kind of image that fmseg reads, or behind a link to a folder")


layouts.add("images", Layout(None, bring))
