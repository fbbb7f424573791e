"""Crops against slices written out by hand."""

import pytest
import torch

from pipeline.evaluation.views import center_crop, five_crop


def grid(height: int, width: int) -> torch.Tensor:
    """One image whose red channel is the row and green the column."""
    rows = torch.arange(height)[:, None].expand(height, width)
    columns = torch.arange(width)[None].expand(height, width)
    return torch.stack([rows, columns, rows * 0], dim=-1)[None].to(torch.uint8)


def corners(views: torch.Tensor) -> list[tuple[int, int]]:
    return [(int(view[0, 0, 0]), int(view[0, 0, 1])) for view in views[0]]


@pytest.mark.parametrize(("height", "width", "corner"), [(10, 14, (1, 3)), (9, 8, (0, 0)), (11, 8, (1, 0))])
def test_center_crop_takes_the_upper_left_of_two_middles(height: int, width: int, corner: tuple[int, int]) -> None:
    views = center_crop(grid(height, width), 8)
    assert views.shape == (1, 1, 8, 8, 3)
    assert corners(views) == [corner]


def test_five_crop_reaches_all_corners_of_the_full_rectangle() -> None:
    views = five_crop(grid(10, 14), 8)
    assert corners(views) == [(0, 0), (0, 6), (2, 0), (2, 6), (1, 3)]
    assert views[0, 3, -1, -1, :2].tolist() == [9, 13]


def test_a_crop_larger_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="crop: 12 does not fit into images of 10×14 pixels"):
        center_crop(grid(10, 14), 12)
