"""PNG, JPEG, BMP and TIFF through Pillow: 2D images without a pixel size.

The formats are listed for Pillow one by one, damaged files are refused rather than filled up, and the number of
pixels is checked in the header, before anything is decoded.
"""

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from fmseg.files import writing
from fmseg.imaging.case import Array, BadFile, Geometry

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
LOSSLESS = {".png": "PNG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}
#: 8,900 x 8,900; below the number from which on Pillow warns
MAX_PIXELS = 80_000_000
EXIF_ORIENTATION = 0x0112
JPEG_MARK = b"\xff\xd8\xff"
FLAT = Geometry(spacing_mm=None, is_2d=True)


class ImageReader:
    """Reader of everyday image files."""

    endings: tuple[str, ...] = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")

    def read(self, path: Path) -> tuple[Array, Geometry, tuple[str, ...]]:
        """Return voxels (C, 1, Y, X) with C = 1 or 3, uint8, uint16, int32 or float32."""
        image, notes = _load(path)
        if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
            notes.append("its transparency was dropped")
        if image.mode == "1":
            return _planes(np.asarray(image).astype(np.uint8) * 255), FLAT, tuple(notes)
        if image.mode in ("LA", "La"):
            image = image.convert("L")
        elif image.mode not in ("L", "RGB", "I", "F") and not image.mode.startswith("I;16"):
            image = image.convert("RGB")  # palettes, RGBA, CMYK, YCbCr
        return _planes(_numbers(image)), FLAT, tuple(notes)

    def read_label(self, path: Path) -> tuple[Array, Geometry]:
        """Return (1, Y, X): grey values as they are, the indices of a palette, 0 and 1 of a 1-bit image."""
        if path.suffix.lower() in (".jpg", ".jpeg") or _is_jpeg(path):
            raise BadFile(path, "this is a JPEG, which changes label values", "Save label maps as PNG.")
        image, _ = _load(path)
        if image.mode in ("LA", "La"):
            image = image.convert("L")
        if image.mode in ("RGB", "RGBA"):
            planes = _planes(np.asarray(image.convert("RGB")))
            if not (np.array_equal(planes[0], planes[1]) and np.array_equal(planes[0], planes[2])):
                mend = "Save one number per pixel: an 8-bit grey image with the values of dataset.json."
                raise BadFile(path, "the label map is a colour image", mend)
            return planes[0], FLAT
        return _numbers(image)[None], FLAT

    def write_label(self, labels: Array, geometry: Geometry, path: Path) -> None:
        """Write (1, Y, X) as 8-bit grey, or as 16-bit grey if a value needs it."""
        file_format = LOSSLESS.get(path.suffix.lower())
        if file_format is None:
            raise BadFile(path, "JPEG changes label values", "Write label maps as .png.")
        if len(labels) != 1:
            raise BadFile(path, f"a 2D image cannot hold {len(labels)} slices", "Write volumes as .nii.gz.")
        wide = int(labels.max(initial=0)) > 255
        if wide and file_format == "BMP":
            raise BadFile(path, "BMP cannot hold label values above 255", "Write it as .png.")
        image = Image.fromarray(np.ascontiguousarray(labels[0], dtype=np.uint16 if wide else np.uint8))
        with writing(path) as temporary:
            image.save(temporary, format=file_format)


def _is_jpeg(path: Path) -> bool:
    """Return whether a file is a JPEG, whatever it is called."""
    with open(path, "rb") as file:
        return file.read(len(JPEG_MARK)) == JPEG_MARK


def _load(path: Path) -> tuple[Image.Image, list[str]]:
    """Return the decoded image, turned upright, and what there is to say about it."""
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # other packages switch it on for the whole process
    notes = []
    try:
        image: Image.Image = Image.open(io.BytesIO(path.read_bytes()), formats=FORMATS)
    except UnidentifiedImageError as error:
        mend = "Copy it again, or convert it to PNG."
        raise BadFile(path, "this is no PNG, JPEG, BMP or TIFF image", mend) from error
    except Image.DecompressionBombError as error:
        raise BadFile(path, "it claims far too many pixels", "Cut or shrink the image.") from error
    with image:
        if image.width * image.height > MAX_PIXELS:
            size = f"it has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}"
            raise BadFile(path, size, "Cut or shrink the image.")
        if getattr(image, "n_frames", 1) > 1:
            pages = f"it holds {image.n_frames} pages"  # type: ignore[attr-defined]
            raise BadFile(path, pages, "Save each page as a file of its own, or the stack as .nii.gz.")
        if _has_wide_colours(image):
            notes.append("its 16-bit colours were read as 8-bit")
        image.load()
    orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    if orientation != 1:
        image = ImageOps.exif_transpose(image)
        notes.append(f"it was turned upright (EXIF orientation {orientation})")
    return image, notes


def _has_wide_colours(image: Image.Image) -> bool:
    """Return whether Pillow drops the lower 8 bits: the raw mode says 16, the mode does not."""
    raw_modes = [str(tile[3]) for tile in getattr(image, "tile", [])]
    return image.mode in ("RGB", "RGBA", "LA") and any(";16" in mode for mode in raw_modes)


def _numbers(image: Image.Image) -> Array:
    """Return the pixels in the machine's byte order."""
    pixels = np.asarray(image)
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _planes(pixels: Array) -> Array:
    """Turn (Y, X) or (Y, X, C) into (C, 1, Y, X)."""
    if pixels.ndim == 2:
        return pixels[None, None]
    return np.stack(cv2.split(pixels))[:, None]
