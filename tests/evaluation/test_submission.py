"""The test server's file: the kit's ids, in the images' order, checked for count, range and repeats."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.data.sources.devkit import read_devkit
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.submission import check_submission, main, submission_lines

IDS = [70, 10, 60, 20, 50, 30]


def made(n_images: int = 3, classes: int = 6) -> Predictions:
    rows = np.random.default_rng(0).random((n_images, classes)).astype(np.float32)
    names = np.array([f"ILSVRC2012_test_{number:08d}.JPEG" for number in range(n_images, 0, -1)])
    return Predictions(names, np.full(n_images, -1), rows)


def test_lines_are_the_likeliest_ids_in_the_order_of_the_numbers() -> None:
    found = made()
    lines = submission_lines(found, IDS)
    for line, row in zip(lines, found.probabilities[::-1], strict=True):
        by_probability = sorted(range(6), key=lambda label: -row[label])
        assert line == " ".join(str(IDS[label]) for label in by_probability[:5])
    check_submission(lines, 3, IDS)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["70 10 60 20 50"], "1 lines for 2 images"),
        (["70 10 60 20 50", "70 10 60 20"], "line 2: '70 10 60 20' is not 5 different"),
        (["70 10 60 20 20", "70 10 60 20 50"], "line 1"),
        (["70 10 60 20 1001", "70 10 60 20 50"], "line 1"),
    ],
)
def test_what_the_server_would_refuse_is_named(lines: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_submission(lines, 2, IDS)


def test_predictions_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="6 classes predicted, 5 in the kit"):
        submission_lines(made(), IDS[:5])
    twice = Predictions(np.array(["a", "a", "b"]), made().labels, made().probabilities)
    with pytest.raises(ValueError, match="predicted twice"):
        submission_lines(twice, IDS)
    rows = Predictions(np.array(["test-0.parquet:2", "test-0.parquet:10", "x"]), made().labels, made().probabilities)
    with pytest.raises(ValueError, match=r"'test-0\.parquet:2' is not an image of the test set .* ilsvrc2012"):
        submission_lines(rows, IDS)


def test_numbers_order_the_lines_whatever_comes_before_them() -> None:
    found = made()
    folders = np.array(["b/test_00000002.JPEG", "c/test_00000001.JPEG", "a/test_00000003.JPEG"])
    moved = Predictions(folders, found.labels, found.probabilities)
    lines = submission_lines(found, IDS)  # in made's own names the rows are numbered 3, 2, 1
    assert submission_lines(moved, IDS) == [lines[1], lines[2], lines[0]]


def test_command_writes_the_file_of_a_real_kit(
    test_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (kit,) = test_data.rglob("ILSVRC2012_devkit_t12.tar.gz")
    ids = [synset.ilsvrc_id for synset in read_devkit(str(kit)).synsets]
    found = made(20, len(ids))
    found.save(tmp_path / "one.npz")
    command = [str(tmp_path / "one.npz"), "--devkit", str(kit), "--out", str(tmp_path / "out.txt")]
    assert main([*command, "--images", "20"]) == 0
    assert (tmp_path / "out.txt").read_text().splitlines() == submission_lines(found, ids)
    (tmp_path / "out.txt").unlink()
    assert main(command) == 2
    assert "20 lines for 100000 images" in capsys.readouterr().err
    assert not (tmp_path / "out.txt").exists()
