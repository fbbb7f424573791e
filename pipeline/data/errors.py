"""What can be wrong with a source or a store, as errors that name the file and the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.storage import ContentError


class SourceError(ContentError):
    """A source that cannot be read as it is: missing files, wrong counts, labels out of range."""


class StoreError(ContentError):
    """A store that is not whole: a missing, changed or unreadable shard or manifest."""


class ImageError(ValueError):
    """One image that cannot be used; the message is the reason alone."""


class BadImagesError(ValueError):
    """Images that cannot be used, every one of them by split, key and reason."""

    def __init__(self, problems: Mapping[str, Sequence[tuple[str, str]]]) -> None:
        self.problems = {split: list(found) for split, found in problems.items()}
        lines = [
            line
            for split, found in self.problems.items()
            for line in (f"{len(found)} bad images in {split}:", *(f"  {key}: {reason}" for key, reason in found))
        ]
        super().__init__(
            "\n".join([*lines, "Repair the source, or set data.on_bad_image to 'skip' to leave them out."])
        )
