"""Label maps in the formats of other programs: 3D Slicer, viewers of palette images, QuPath, COCO tools."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fmseg.files import write_bytes, writing
from fmseg.imaging.case import Geometry
from fmseg.imaging.polygons import Ring, polygons_of
from fmseg.records.labels import LabelScheme
from fmseg.reporting.overlays import colour_of

# Z Y X an image's own grid


def masks_of(labels: np.ndarray, scheme: LabelScheme) -> dict[str, np.ndarray]:
    """Return class or region -> where it is: (Z, Y, X) bool; regions may overlap."""
    return {name: np.isin(labels, values) for name, values in zip(scheme.names, scheme.values, strict=True)}


def write_slicer(labels: np.ndarray, geometry: Geometry, scheme: LabelScheme, path: Path) -> None:
    """Write (Z, Y, X) as .seg.nrrd, a segment for each class; of regions, which may overlap, a layer for each.

    What the header says is 3D Slicer's [1].
    [1] https://github.com/Slicer/Slicer/blob/main/Modules/Loadable/Segmentations/Widgets/README.md
    """
    import SimpleITK as sitk

    if scheme.has_regions:
        layers = np.stack([mask.astype(np.uint8) for mask in masks_of(labels, scheme).values()], axis=-1)
        image = sitk.GetImageFromArray(layers, isVector=True)
    else:
        image = sitk.GetImageFromArray(labels.astype(np.uint8))
    depth, height, width = labels.shape
    spacing = geometry.spacing_mm or (1.0, 1.0, 1.0)
    image.SetSpacing(spacing[::-1])
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    header = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for index, (name, value) in enumerate(zip(scheme.names, scheme.painted, strict=True)):
        colour = " ".join(f"{part / 255:.4f}" for part in colour_of(value))
        segment = {
            "ID": f"Segment_{index + 1}",
            "Name": name,
            "LabelValue": "1" if scheme.has_regions else str(value),
            "Layer": str(index if scheme.has_regions else 0),
            "Color": colour,
            "Extent": f"0 {width - 1} 0 {height - 1} 0 {depth - 1}",
        }
        header |= {f"Segment{index}_{key}": text for key, text in segment.items()}
    for key, text in header.items():
        image.SetMetaData(key, text)
    with writing(path) as temporary:
        part = temporary.with_name(temporary.name + ".nrrd")  # SimpleITK goes by the ending
        try:
            sitk.WriteImage(image, str(part), True)
            os.replace(part, temporary)
        finally:
            part.unlink(missing_ok=True)


def write_palette(labels: np.ndarray, path: Path) -> None:
    """Write (Y, X) as a PNG whose pixels are the label values, shown in the colours of a palette."""
    palette = [(0, 0, 0), *(colour_of(value) for value in range(1, 256))]
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette([part for colour in palette for part in colour])
    with writing(path) as temporary:
        image.save(temporary, format="PNG")


def write_geojson(labels: np.ndarray, scheme: LabelScheme, path: Path) -> None:
    """Write (Z, Y, X) as polygons in pixels, x to the right and y downwards, as QuPath reads them."""
    features = []
    for name, mask in masks_of(labels, scheme).items():
        colour = list(colour_of(scheme.painted[scheme.names.index(name)]))
        for z, plane in enumerate(mask):
            for polygon in polygons_of(plane):
                properties = {
                    "objectType": "annotation",
                    "classification": {"name": name, "color": colour},
                    "slice": z,
                }
                geometry = {"type": "Polygon", "coordinates": [_closed(ring) for ring in polygon]}
                features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    content = {"type": "FeatureCollection", "features": features}
    write_bytes(path, (json.dumps(content, ensure_ascii=False) + "\n").encode())


def coco_annotations(labels: np.ndarray, scheme: LabelScheme) -> list[dict[str, Any]]:
    """Return the parts of each class of one image (Y, X) as COCO has them, without the numbers of image and part.

    A part without holes is a polygon, one with holes run lengths, since COCO's polygons know none.
    """
    found = []
    for category, mask in enumerate(masks_of(labels, scheme).values(), start=1):
        for polygon in polygons_of(mask):
            outline = np.array(polygon[0])
            left, top = outline.min(axis=0).tolist()
            right, bottom = outline.max(axis=0).tolist()
            part = _inside(polygon, labels.shape, mask)
            segmentation: Any = [outline.ravel().tolist()]
            if len(polygon) > 1:
                segmentation = {"counts": _run_lengths(part), "size": list(labels.shape)}
            found.append(
                {
                    "category_id": category,
                    "segmentation": segmentation,
                    "area": int(part.sum()),
                    "bbox": [left, top, right - left, bottom - top],
                    "iscrowd": 0,
                }
            )
    return found


def coco_categories(scheme: LabelScheme) -> list[dict[str, Any]]:
    """Return the classes as COCO has them."""
    return [{"id": number, "name": name} for number, name in enumerate(scheme.names, start=1)]


def coco_file(images: list[dict[str, Any]], annotations: list[dict[str, Any]], scheme: LabelScheme) -> dict[str, Any]:
    """Return the content of a COCO file."""
    numbered = [{"id": number, **annotation} for number, annotation in enumerate(annotations, start=1)]
    return {"images": images, "categories": coco_categories(scheme), "annotations": numbered}


def _inside(polygon: list[Ring], size: tuple[int, ...], mask: np.ndarray) -> np.ndarray:
    """Return the part of a mask (Y, X) that a polygon stands for."""
    from scipy import ndimage

    parts, _ = ndimage.label(mask)
    x, y = polygon[0][0]  # the uppermost, leftmost corner of the outline: its pixel is inside
    return parts == parts[y, x]


def _closed(ring: Ring) -> list[list[int]]:
    return [list(point) for point in (*ring, ring[0])]


def _run_lengths(mask: np.ndarray) -> list[int]:
    """Return COCO's run lengths of a mask (Y, X): down the columns, of zeros and ones in turn, zeros first."""
    flat = np.concatenate([[0], mask.T.ravel().astype(np.int8), [0]])
    changes = np.flatnonzero(np.diff(flat))
    bounds = np.concatenate([[0], changes, [mask.size]])
    lengths = np.diff(bounds).tolist()
    return lengths if lengths[-1] else lengths[:-1]
