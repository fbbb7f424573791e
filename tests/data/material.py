"""Small real images, archives in the distributed layouts, and parameters for them."""

from __future__ import annotations

import io
import tarfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from pipeline.data.sources.ilsvrc2012 import DEVKIT, TRAIN, VAL
from pipeline.schema import Data

# In WNID order, with the development kit's numbers in another one.
SYNSETS = {"n01440764": (3, "tench, Tinca tinca"), "n02102040": (1, "English springer"), "n03000684": (2, "chain saw")}
WNIDS = tuple(SYNSETS)


def picture(seed: int, width: int = 40, height: int = 30) -> Image.Image:
    """A smooth colour picture, another one for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """The image as a file's content."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(seed: int, width: int = 40, height: int = 30) -> bytes:
    """A JPEG file's content."""
    return encoded(picture(seed, width, height), quality=90)


def tar(path: Path, members: dict[str, bytes]) -> bytes:
    """Write a tar archive of `members`; returns its content."""
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path.read_bytes()


def train_images(per_class: int = 6) -> dict[str, dict[str, bytes]]:
    """Names and contents of training images by WNID."""
    return {
        wnid: {f"{wnid}_{number}.JPEG": jpeg(1000 * label + number) for number in range(per_class)}
        for label, wnid in enumerate(WNIDS)
    }


def write_ilsvrc2012(
    folder: Path,
    train: dict[str, dict[str, bytes]] | None = None,
    val: dict[str, bytes] | None = None,
    truth: list[int] | None = None,
    counts: dict[str, int] | None = None,
) -> Path:
    """The three archives as ILSVRC2012 is distributed, for three classes; `truth` holds the kit's own numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    train = train_images() if train is None else train
    val = {f"ILSVRC2012_val_{n:08d}.JPEG": jpeg(9000 + n) for n in range(1, 8)} if val is None else val
    truth = [1 + n % 3 for n in range(len(val))] if truth is None else truth
    inner = {f"{wnid}.tar": tar(folder / "inner.tar", members) for wnid, members in train.items()}
    (folder / "inner.tar").unlink()
    tar(folder / TRAIN, inner)
    tar(folder / VAL, val)
    write_devkit(folder / DEVKIT, truth, counts or {wnid: len(members) for wnid, members in train.items()})
    return folder


def write_devkit(path: Path, truth: list[int], counts: dict[str, int]) -> None:
    """A development kit with an inner node of the hierarchy beside the classes."""
    fields = (
        "ILSVRC2012_ID",
        "WNID",
        "words",
        "gloss",
        "num_children",
        "children",
        "wordnet_height",
        "num_train_images",
    )
    rows = [(number, w, words, "", 0, [], 0, counts.get(w, 0)) for w, (number, words) in SYNSETS.items()]
    rows.append((4, "n00001740", "entity", "", 3, [1, 2, 3], 18, 0))
    synsets = np.array(rows, dtype=[(name, object) for name in fields])
    buffer = io.BytesIO()
    savemat(buffer, {"synsets": synsets[:, None]})
    lines = "".join(f"{number}\n" for number in truth).encode()
    root = "ILSVRC2012_devkit_t12/data"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in (("meta.mat", buffer.getvalue()), ("ILSVRC2012_validation_ground_truth.txt", lines)):
            info = tarfile.TarInfo(f"{root}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def write_class_folders(folder: Path, images: dict[str, bytes]) -> Path:
    """Files by their path below `folder`."""
    for name, content in images.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def data(source: str, url: Path | str | None, **changes: Any) -> Data:
    """Parameters of a small encoded store, with changes."""
    tree: dict[str, Any] = {
        "source": source,
        "url": None if url is None else str(url),
        "store": None,
        "keep": "encoded",
        "size": None,
        "limit_shorter_side": None,
        "shard_images": 4,
        "memory_mib": 1,
        "on_bad_image": "error",
        "max_pixels": 1_000_000,
        "holdout": {"images": 0, "seed": 0, "balanced": False, "train_on": True},
        "mean": {"kind": "per_pixel", "shorter_side": 24, "crop": 16, "divide_by_std": False},
    }
    return Data.model_validate({**tree, **changes})


def digits(**changes: Any) -> Data:
    """Parameters of the digits, enlarged to 20 x 20."""
    mean = {"kind": "per_pixel", "shorter_side": 20, "crop": 16, "divide_by_std": False}
    return data("digits", None, **{"keep": "decoded", "size": 20, "shard_images": 500, "mean": mean, **changes})


def tree_of(folder: Path) -> dict[str, bytes]:
    """All files below a folder with their content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def map_in_processes(workers: int) -> Any:
    """A `run_tasks` that spreads tasks over fresh processes."""

    def run(function: Any, tasks: Any) -> list[Any]:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            return list(pool.map(function, tasks))

    return run
