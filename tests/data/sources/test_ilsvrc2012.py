"""Tests of pipeline.data.sources.ilsvrc2012 and its development kit."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from pipeline.data.errors import SourceError
from pipeline.data.sources.base import Listing
from pipeline.data.sources.devkit import _synsets, read_devkit
from pipeline.data.sources.ilsvrc2012 import DEVKIT, TRAIN, VAL, Ilsvrc2012
from pipeline.storage import RangeReader, publish
from tests.data.material import SYNSETS, WNIDS, jpeg, tar, train_images, write_devkit, write_ilsvrc2012


def listing(folder: Path, shard_images: int = 4) -> Listing:
    return Ilsvrc2012(str(folder)).listing(shard_images, map)


def samples(folder: Path, split: str) -> dict[str, tuple[int, bytes]]:
    source = Ilsvrc2012(str(folder))
    found = [s for piece in listing(folder).pieces if piece.split == split for s in source.read(piece)]
    assert len({sample.key for sample in found}) == len(found)
    return {sample.key: (sample.label, bytes(sample.image)) for sample in found}


def test_train_labels_are_positions_in_wnid_order(tmp_path: Path) -> None:
    images = train_images()
    found = samples(write_ilsvrc2012(tmp_path, dict(reversed(images.items()))), "train")
    expected = {
        f"{w}/{name}": (WNIDS.index(w), content) for w, some in images.items() for name, content in some.items()
    }
    assert found == expected
    assert listing(tmp_path).class_keys == WNIDS
    assert listing(tmp_path).class_names == tuple(words for _, words in SYNSETS.values())


def test_val_labels_come_from_the_kit_by_image_number_not_by_archive_order(tmp_path: Path) -> None:
    names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in (3, 1, 2)]
    write_ilsvrc2012(tmp_path, val={name: jpeg(n) for n, name in enumerate(names)}, truth=[3, 1, 2])
    # the kit's 3, 1, 2 are n01440764, n02102040, n03000684: labels 0, 1, 2
    labels = {key: label for key, (label, _) in samples(tmp_path, "val").items()}
    assert labels == {f"ILSVRC2012_val_{number:08d}.JPEG": number - 1 for number in (1, 2, 3)}


def test_a_pieces_images_are_read_by_one_reader_whatever_their_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def counted(url: str) -> RangeReader:
        opened.append(url)
        return RangeReader(url)

    monkeypatch.setattr("pipeline.data.sources.files.RangeReader", counted)
    write_ilsvrc2012(tmp_path)
    (piece,) = (piece for piece in listing(tmp_path, 100).pieces if piece.split == "val")
    assert len({sample.label for sample in Ilsvrc2012(str(tmp_path)).read(piece)}) > 1
    assert opened == [str(tmp_path / VAL)]


def test_test_images_have_no_labels(tmp_path: Path) -> None:
    write_ilsvrc2012(tmp_path)
    names = [f"test/ILSVRC2012_test_{number:08d}.JPEG" for number in (1, 2)]
    tar(tmp_path / "ILSVRC2012_img_test_v10102019.tar", {name: jpeg(n) for n, name in enumerate(names)})
    assert samples(tmp_path, "test") == {name: (-1, jpeg(n)) for n, name in enumerate(names)}


def test_pieces_have_the_asked_size_and_do_not_depend_on_it(tmp_path: Path) -> None:
    write_ilsvrc2012(tmp_path)
    for shard_images in (1, 5, 100):
        counts = Counter[str]()
        for piece in listing(tmp_path, shard_images).pieces:
            assert 0 < piece.images <= shard_images
            counts[piece.split] += piece.images
        assert counts == {"train": 18, "val": 7}


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    for name in (TRAIN, VAL, DEVKIT):
        folder = write_ilsvrc2012(tmp_path / name)
        (folder / name).unlink()
        with pytest.raises(SourceError, match=f"{folder}: no {name} there"):
            listing(folder)


def test_a_missing_and_an_unknown_class_are_named(tmp_path: Path) -> None:
    images = train_images()
    missing = images.pop(WNIDS[1])
    with pytest.raises(SourceError, match=f"no class archive for {WNIDS[1]}"):
        listing(write_ilsvrc2012(tmp_path / "a", images))
    images |= {WNIDS[1]: missing, "n99999999": missing}
    with pytest.raises(SourceError, match="n99999999 are no classes"):
        listing(write_ilsvrc2012(tmp_path / "b", images))


def test_a_class_short_of_images_is_named(tmp_path: Path) -> None:
    counts = dict.fromkeys(WNIDS, 6) | {WNIDS[2]: 7}
    with pytest.raises(SourceError, match=rf"6 images in {WNIDS[2]}\.tar, 7 in the development kit"):
        listing(write_ilsvrc2012(tmp_path, counts=counts))


def test_more_lines_of_ground_truth_than_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="7 images, but 8 lines of ground truth"):
        listing(write_ilsvrc2012(tmp_path, truth=[1] * 8))


def test_labels_out_of_range_are_named_by_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="line 2: 4; line 6: 0"):  # 4 is an inner node, no class
        listing(write_ilsvrc2012(tmp_path, truth=[1, 4, 2, 3, 1, 0, 2]))


def test_a_gap_in_the_numbers_is_named(tmp_path: Path) -> None:
    val = {f"ILSVRC2012_val_{number:08d}.JPEG": jpeg(number) for number in (1, 2, 4)}
    with pytest.raises(SourceError, match="no image of number 3 among 3"):
        listing(write_ilsvrc2012(tmp_path, val=val))


def test_a_damaged_class_archive_is_named(tmp_path: Path) -> None:
    write_ilsvrc2012(tmp_path)
    tar(tmp_path / TRAIN, {f"{wnid}.tar": b"junk" * 500 for wnid in WNIDS})
    with pytest.raises(SourceError, match=rf"{TRAIN}: {WNIDS[0]}\.tar: damaged or not a tar archive"):
        listing(tmp_path)


def test_a_damaged_kit_is_named(tmp_path: Path) -> None:
    kit = tmp_path / DEVKIT
    write_devkit(kit, [1], {})
    whole = kit.read_bytes()
    for content in (b"junk", whole[: len(whole) // 2]):
        kit.write_bytes(content)
        with pytest.raises(SourceError, match=f"{DEVKIT}: "):
            read_devkit(str(kit))


def test_the_kit_of_the_ten_classes(test_data: Path) -> None:
    kit = read_devkit(str(test_data / "imagenette" / DEVKIT))
    assert len(kit.synsets) == 10
    assert len(kit.ground_truth) == 3925
    assert [synset.wnid for synset in kit.synsets][:2] == ["n01440764", "n02102040"]
    assert kit.synsets[0].words == "tench, Tinca tinca"
    assert [synset.ilsvrc_id for synset in kit.synsets] == [6, 2, 5, 3, 4, 7, 10, 8, 9, 1]


def test_archives_in_s3_give_the_same_samples(s3: str, tmp_path: Path) -> None:
    write_ilsvrc2012(tmp_path)
    for name in (TRAIN, VAL, DEVKIT):
        with publish(f"{s3}/{name}") as partial:
            partial.write_bytes((tmp_path / name).read_bytes())
    local, remote = Ilsvrc2012(str(tmp_path)), Ilsvrc2012(s3)
    assert remote.listing(4, map) == local.listing(4, map)
    for piece in local.listing(4, map).pieces:
        assert list(remote.read(piece)) == list(local.read(piece))


def test_a_kit_of_one_class_is_read() -> None:
    fields = ("ILSVRC2012_ID", "WNID", "words", "num_children", "num_train_images")
    buffer = io.BytesIO()
    rows = np.array([(1, "n01440764", "tench", 0, 5)], dtype=[(name, object) for name in fields])
    savemat(buffer, {"synsets": rows[:, None]})
    (found,) = _synsets(buffer.getvalue(), "kit")
    assert (found.wnid, found.ilsvrc_id, found.words, found.train_images) == ("n01440764", 1, "tench", 5)
