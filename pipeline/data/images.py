"""One image, as it came, made fit for the store: checked by decoding it whole, and kept as bytes or as pixels."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from pipeline.data.errors import ImageError
from pipeline.data.resize import resize_shorter_side

_SMALLEST_SIDE = 2
_LARGEST_ASPECT = 64
_ORIENTATION = 0x0112
_REENCODING_QUALITY = 95


@dataclass(frozen=True)
class Conversion:
    """How a store keeps images."""

    keep: Literal["decoded", "encoded"]
    size: int | None
    limit_shorter_side: int | None
    max_pixels: int


@dataclass(frozen=True)
class Converted:
    """An image ready for the store."""

    content: bytes
    shape: tuple[int, int, int]
    """Of the pixels kept or encoded."""
    oddities: tuple[str, ...]


def decode_rgb(content: bytes | memoryview) -> np.ndarray:
    """The pixels of an encoded image, uint8 (H, W, 3), by PIL: the plain way that faster ones are measured against."""
    with Image.open(io.BytesIO(content)) as picture:
        return to_rgb(picture)


def to_rgb(picture: Image.Image) -> np.ndarray:
    """uint8 (H, W, 3); of 16 bits a channel the upper 8 are kept. EXIF rotation is ignored, as Caffe ignores it."""
    if picture.mode.startswith("I;16"):
        grey = (np.asarray(picture).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.mode in ("I", "F"):
        raise ImageError(f"pixels of kind '{picture.mode}' (32 bits) have no defined range")
    return np.asarray(picture.convert("RGB"))


def convert(image: bytes | np.ndarray, conversion: Conversion) -> Converted:
    """`image` as the store keeps it; ImageError with the reason when it cannot be used."""
    if isinstance(image, np.ndarray):
        image = _three_channels(image)
    pixels, oddities = (image, ()) if isinstance(image, np.ndarray) else _decode_checked(image, conversion.max_pixels)
    if conversion.keep == "decoded":
        return _as_pixels(pixels, conversion.size, oddities)
    limit = conversion.limit_shorter_side
    if limit is not None and min(pixels.shape[:2]) > limit:
        smaller = resize_shorter_side(pixels, limit)
        return Converted(_encode(smaller, "JPEG"), _shape(smaller), (*oddities, "reencoded"))
    content = image if isinstance(image, bytes) else _encode(pixels, "PNG")
    return Converted(content, _shape(pixels), oddities)


def _as_pixels(pixels: np.ndarray, size: int | None, oddities: tuple[str, ...]) -> Converted:
    height, width = pixels.shape[:2]
    if size is not None and height != width:
        raise ImageError(f"{width}x{height} pixels cannot be resized to {size}x{size}; keep such images encoded")
    sized = pixels if size is None else resize_shorter_side(pixels, size)
    return Converted(sized.tobytes(), _shape(sized), oddities)


def _decode_checked(content: bytes, max_pixels: int) -> tuple[np.ndarray, tuple[str, ...]]:
    if not content:
        raise ImageError("zero bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content)) as picture:
                _check_size(picture.width, picture.height, max_pixels)
                oddities = _oddities(picture)
                return to_rgb(picture), oddities
    except (ImageError, MemoryError):
        raise
    except Image.UnidentifiedImageError:
        raise ImageError(f"not an image (it begins with {content[:16]!r})") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"more than max_pixels = {max_pixels} ({error})") from None
    except Exception as error:  # PIL's decoders raise errors of any kind on broken files
        raise ImageError(f"cannot be decoded ({type(error).__name__}: {error})") from None


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageError(f"{width}x{height} pixels are more than max_pixels = {max_pixels}")
    if min(width, height) < _SMALLEST_SIDE or max(width, height) > _LARGEST_ASPECT * min(width, height):
        raise ImageError(
            f"{width}x{height} pixels: thinner than {_SMALLEST_SIDE} pixels, or than 1 to {_LARGEST_ASPECT}"
        )


def _oddities(picture: Image.Image) -> tuple[str, ...]:
    found = {
        "not_jpeg": picture.format not in ("JPEG", "MPO"),
        "greyscale": picture.mode in ("1", "L", "LA"),
        "cmyk": picture.mode in ("CMYK", "YCCK"),
        "sixteen_bit": picture.mode.startswith("I;16"),
        "exif_rotated": _orientation(picture) != 1,
    }
    return tuple(name for name, present in found.items() if present)


def _orientation(picture: Image.Image) -> int:
    """As EXIF has it; upright where that is broken, which the pixels are not."""
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # PIL raises errors of any kind on broken metadata
        return 1


def _three_channels(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels


def _shape(pixels: np.ndarray) -> tuple[int, int, int]:
    return (pixels.shape[0], pixels.shape[1], 3)


def _encode(pixels: np.ndarray, kind: Literal["JPEG", "PNG"]) -> bytes:
    buffer = io.BytesIO()
    options = {"quality": _REENCODING_QUALITY, "subsampling": 0} if kind == "JPEG" else {}
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()
