"""manifest.json: what a store holds, file by file; the same input gives the same bytes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.data.errors import StoreError

MANIFEST = "manifest.json"
STATISTICS = "statistics.safetensors"
SCHEMA_VERSION = 1

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


class Entry(BaseModel):
    """A part of the manifest: unknown keys are errors, and nothing changes once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(Entry):
    """A file of the store."""

    name: str
    bytes: Count
    sha256: Sha256


class ShardEntry(FileEntry):
    """A shard: an Arrow IPC file of `rows` images."""

    rows: Count


class Skipped(Entry):
    """An image that was left out."""

    key: str
    reason: str


class SplitEntry(Entry):
    """The images of one split, in the order of its shards."""

    n_images: Count
    unlabelled: Count
    images_by_class: dict[str, Count]
    """Keyed by class key, in label order."""
    shards: tuple[ShardEntry, ...]
    index: FileEntry
    """Labels and keys of all rows, so that they can be had without the shards."""
    oddities: dict[str, Count]
    """Images kept though unusual, by kind: greyscale, cmyk, not_jpeg, sixteen_bit, exif_rotated, reencoded."""
    skipped: tuple[Skipped, ...]


class MeanEntry(Entry):
    """Over which view of the training images the statistics were taken."""

    shorter_side: int | None
    crop: int


class ColorPca(Entry):
    """Principal components of the training pixels' colours, 0 to 255: variances, and directions as rows."""

    eigenvalues: tuple[float, float, float]
    eigenvectors: tuple[tuple[float, float, float], ...]


class Manifest(Entry):
    """A store, whole."""

    schema_version: Literal[1]  # SCHEMA_VERSION
    source: str
    url: str | None
    """The source as the parameters give it."""
    store: str | None
    """URL of the shards; null when they lie beside this file."""
    keep: Literal["decoded", "encoded"]
    image_shape: tuple[int, int, int] | None
    """Height, width, 3 of decoded images; null for encoded ones."""
    limit_shorter_side: int | None
    class_keys: tuple[str, ...]
    """What the source calls each class, such as its WNID; the index is the label."""
    class_names: tuple[str, ...]
    splits: dict[str, SplitEntry]
    mean: MeanEntry
    statistics: FileEntry
    color_pca: ColorPca

    def to_bytes(self) -> bytes:
        """The file's content."""
        return (self.model_dump_json(indent=1) + "\n").encode()

    @staticmethod
    def parse(content: bytes, where: str) -> Manifest:
        """The manifest in a file's content; StoreError names `where` when it is not one."""
        try:
            return Manifest.model_validate_json(content)
        except ValidationError as error:
            problem = error.errors()[0]
            key = ".".join(str(part) for part in problem["loc"])
            raise StoreError(
                f"{where}: not a manifest this version reads ({key}: {problem['msg']}); prepare it again"
            ) from None


class ShardRecord(Entry):
    """What a finished shard is, kept beside it so that an interrupted preparation can go on."""

    spec: Sha256
    """Digest of what the shard was made from and how."""
    shard: ShardEntry | None
    """Null where nothing was written: all rows were left out, or bad images forbid it."""
    image_shape: tuple[int, int, int] | None
    labels: tuple[int, ...]
    keys: tuple[str, ...]
    oddities: dict[str, Count]
    bad: tuple[Skipped, ...]
