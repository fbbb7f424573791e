"""Images as clients send them: pixel arrays, encoded bytes, base64; each problem is a ValueError that says where."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline.data.images import to_rgb

MOST_PIXELS = 50_000_000
MOST_PIXELS_AT_ONCE = 250_000_000
"""Of all images of a request together: as many as 4,096 images of ImageNet's usual 224x224, and some."""
MOST_IMAGES = 4096
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")


class _RefusedError(ValueError):
    pass


def as_images(data: Any) -> list[np.ndarray]:
    """RGB images, each uint8 (h, w, 3), from whatever holds them.

    Taken are an array (N, h, w, 3) or a single (h, w, 3) of whole numbers 0 … 255, or a sequence, mapping of one entry
    or table of one column whose items are such arrays (of any sizes), encoded images as bytes, or those as base64 text.
    ValueError names the item and what is wrong with it.
    """
    items = _items(data)
    if len(items) == 0:
        raise ValueError("images: there are none")
    if len(items) > MOST_IMAGES:
        raise ValueError(f"images: {len(items)} at once; send at most {MOST_IMAGES}")
    images, pixels = [], 0
    for index, item in enumerate(items):
        images.append(_image(item, index))
        pixels += images[-1].shape[0] * images[-1].shape[1]
        if pixels > MOST_PIXELS_AT_ONCE:
            raise ValueError(f"images: more than {MOST_PIXELS_AT_ONCE} pixels together; send fewer at once")
    return images


def _items(data: Any) -> Any:
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        if len(data.columns) != 1:
            raise ValueError(f"images: a table of columns {list(data.columns)}; give one column of images")
        return data.iloc[:, 0].tolist()
    if isinstance(data, dict):
        if len(data) != 1:
            raise ValueError(f"images: entries {sorted(map(str, data))}; give one entry, 'images'")
        return _items(next(iter(data.values())))
    if isinstance(data, np.ndarray):
        return _array_items(data)
    if isinstance(data, bytes | bytearray | memoryview | str):
        return [data]
    if isinstance(data, list | tuple):
        return data
    raise ValueError(f"images: {type(data).__name__} is not a batch of images")


def _array_items(data: np.ndarray) -> Any:
    if data.dtype.kind == "S":
        raise ValueError("images: a NumPy array of fixed-length bytes loses trailing zeros; make it with dtype=object")
    if data.ndim == 0:
        return _items(data.item())
    return [data] if data.ndim == 3 else data


def _image(item: Any, index: int) -> np.ndarray:
    where = f"image {index}"
    if isinstance(item, str):
        return _decode(_from_base64(item, where), where)
    if isinstance(item, bytes | bytearray | memoryview):
        return _decode(bytes(item), where)
    if isinstance(item, np.ndarray | list | tuple):
        return _pixels(item, where)
    raise ValueError(f"{where}: {type(item).__name__}; give pixels (h, w, 3), encoded bytes, or base64 text")


def _pixels(item: Any, where: str) -> np.ndarray:
    try:
        pixels = np.asarray(item) if isinstance(item, np.ndarray) else np.array(item)
        pixels = np.array(pixels.tolist()) if pixels.dtype == object else pixels
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{where}: rows of pixels of different lengths") from error
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(f"{where}: shape {pixels.shape}; give (height, width, 3), in RGB order")
    if pixels.shape[0] * pixels.shape[1] > MOST_PIXELS:
        raise ValueError(f"{where}: {pixels.shape[1]}x{pixels.shape[0]} pixels; at most {MOST_PIXELS} are taken")
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype.kind not in "iu" or pixels.min() < 0 or pixels.max() > 255:
        raise ValueError(f"{where}: {pixels.dtype} values; give whole numbers 0 … 255 (uint8)")
    return pixels.astype(np.uint8)


def _from_base64(text: str, where: str) -> bytes:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{where}: not base64: {error}") from error


def _decode(encoded: bytes, where: str) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # size is checked below, against a bound of our own
            with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
                _check_size(image.width, image.height, where)
                return to_rgb(image)
    except UnidentifiedImageError as error:
        raise ValueError(f"{where}: {len(encoded)} bytes that are no image of {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{where}: too many pixels; at most {MOST_PIXELS} are taken") from error
    except _RefusedError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything for broken files
        raise ValueError(f"{where}: broken image: {error}") from error


def _check_size(width: int, height: int, where: str) -> None:
    if width * height > MOST_PIXELS:
        raise _RefusedError(f"{where}: {width}x{height} pixels; at most {MOST_PIXELS} are taken")
