"""PNG, JPEG, BMP and TIFF through Pillow: 2D images without a pixel size, and clips as the pages of a TIFF.

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
from fmseg.imaging.wholeness import check_image

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
LOSSLESS = {".png": "PNG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}
#: 8,900 x 8,900; below the number from which on Pillow warns
MAX_PIXELS = 80_000_000
#: of all pages of a TIFF together
MAX_CLIP_PIXELS = 2**30
EXIF_ORIENTATION = 0x0112
JPEG_MARK = b"\xff\xd8\xff"
MAP_MASKS = "Masks of other kinds are mapped by: fmseg convert masks"
FLAT = Geometry(spacing_mm=None, is_2d=True)


class ImageReader:
    """Reader of everyday image files."""

    endings: tuple[str, ...] = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")

    def read(self, path: Path) -> tuple[Array, Geometry, tuple[str, ...]]:
        """Return voxels (C, Z, Y, X) with C = 1 or 3, uint8, uint16, int32 or float32; Z counts the pages of a TIFF."""
        pages, notes = _load(path)
        if any(page.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in page.info for page in pages):
            notes.append("its transparency was dropped")
        voxels = np.concatenate([_planes(_image_values(page)) for page in pages], axis=1)
        return voxels, _geometry(pages), tuple(notes)

    def read_label(self, path: Path) -> tuple[Array, Geometry]:
        """Return (Z, Y, X): grey values as they are, the indices of a palette, 0 and 1 of a 1-bit image."""
        if path.suffix.lower() in (".jpg", ".jpeg") or _is_jpeg(path):
            raise BadFile(path, "this is a JPEG, which changes label values", f"Save label maps as PNG. {MAP_MASKS}")
        pages, _ = _load(path)
        return np.stack([_label_values(path, page) for page in pages]), _geometry(pages)

    def write_label(self, labels: Array, geometry: Geometry, path: Path) -> None:
        """Write (Z, Y, X) as 8-bit grey, or as 16-bit grey if a value needs it; several slices as pages of a TIFF."""
        file_format = LOSSLESS.get(path.suffix.lower())
        if file_format is None:
            raise BadFile(path, "JPEG changes label values", "Write label maps as .png.")
        if len(labels) != 1 and file_format != "TIFF":
            raise BadFile(path, f"a 2D image cannot hold {len(labels)} slices", "Write volumes as .nii.gz.")
        wide = int(labels.max(initial=0)) > 255
        if wide and file_format == "BMP":
            raise BadFile(path, "BMP cannot hold label values above 255", "Write it as .png.")
        pages = [Image.fromarray(page) for page in np.ascontiguousarray(labels, np.uint16 if wide else np.uint8)]
        with writing(path) as temporary:
            if len(pages) == 1:
                pages[0].save(temporary, format=file_format)
            else:
                pages[0].save(temporary, format=file_format, save_all=True, append_images=pages[1:])


def colours_of(path: Path) -> Array:
    """Return the colours (Y, X, 3) uint8 of a label map that is painted in colours. Raises BadFile for a clip."""
    pages, _ = _load(path)
    if len(pages) != 1:
        raise BadFile(path, f"it holds {len(pages)} pages", "Save each page as a file of its own.")
    return np.asarray(pages[0].convert("RGB"))


def _is_jpeg(path: Path) -> bool:
    """Return whether a file is a JPEG, whatever it is called."""
    with open(path, "rb") as file:
        return file.read(len(JPEG_MARK)) == JPEG_MARK


def _load(path: Path) -> tuple[list[Image.Image], list[str]]:
    """Return the decoded pages, turned upright, and what there is to say about them."""
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # other packages switch it on for the whole process
    notes: list[str] = []
    content = path.read_bytes()
    try:
        image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError as error:
        mend = "Copy it again, or convert it to PNG."
        raise BadFile(path, "this is no PNG, JPEG, BMP or TIFF image", mend) from error
    except Image.DecompressionBombError as error:
        raise BadFile(path, "it claims far too many pixels", "Cut or shrink the image.") from error
    rest = check_image(path, content, image.format)
    if rest:
        notes.append(f"{rest} bytes behind its end are no part of it, and were left out")
    with image:
        num_pages = getattr(image, "n_frames", 1)
        # a TIFF that is called .png is no clip that somebody meant
        if num_pages > 1 and LOSSLESS.get(path.suffix.lower()) != "TIFF":
            mend = "Save each page as a file of its own, or the stack as .nii.gz."
            raise BadFile(path, f"it holds {num_pages} pages", mend)
        pages: list[Image.Image] = []
        for number in range(num_pages):
            image.seek(number)
            _check_page(path, image, num_pages, pages[0] if pages else image)
            if _has_wide_colours(image):
                notes.append("its 16-bit colours were read as 8-bit")
            image.load()
            pages.append(_upright(image, notes))
    return pages, list(dict.fromkeys(notes))


def _check_page(path: Path, page: Image.Image, num_pages: int, first: Image.Image) -> None:
    """Refuse a page, from its header, that is too large or unlike the first one."""
    most = MAX_PIXELS if num_pages == 1 else min(MAX_PIXELS, MAX_CLIP_PIXELS // num_pages)
    if page.width * page.height > most:
        number = "" if num_pages == 1 else f" on each of {num_pages} pages"
        size = f"it has {page.width} x {page.height} pixels{number}, more than {most:,}"
        raise BadFile(path, size, "Cut or shrink the image.")
    if page.mode != first.mode or sorted(page.size) != sorted(first.size):
        sizes = f"its {num_pages} pages are of different sizes or kinds"
        raise BadFile(path, sizes, "Save each page as a file of its own.")


def _upright(image: Image.Image, notes: list[str]) -> Image.Image:
    """Return a copy of the page that is shown, turned as its EXIF orientation says."""
    orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    if orientation == 1:
        return image.copy()
    notes.append(f"it was turned upright (EXIF orientation {orientation})")
    return ImageOps.exif_transpose(image)


def _image_values(image: Image.Image) -> Array:
    """Return (Y, X) or (Y, X, 3)."""
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8) * np.uint8(255)
    if image.mode in ("LA", "La"):
        image = image.convert("L")
    elif image.mode not in ("L", "RGB", "I", "F") and not image.mode.startswith("I;16"):
        image = image.convert("RGB")  # palettes, RGBA, CMYK, YCbCr
    return _numbers(image)


def _label_values(path: Path, image: Image.Image) -> Array:
    """Return (Y, X). Raises BadFile for colours."""
    if image.mode in ("LA", "La"):
        image = image.convert("L")
    if image.mode in ("RGB", "RGBA"):
        planes = _planes(np.asarray(image.convert("RGB")))[:, 0]
        if not (np.array_equal(planes[0], planes[1]) and np.array_equal(planes[0], planes[2])):
            mend = f"Save one number per pixel, a value of dataset.json. {MAP_MASKS}"
            raise BadFile(path, "the label map is a colour image", mend)
        return planes[0]
    return _numbers(image)


def _geometry(pages: list[Image.Image]) -> Geometry:
    return FLAT if len(pages) == 1 else Geometry(spacing_mm=None)


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
