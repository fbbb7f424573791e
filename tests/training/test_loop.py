"""The loop's numbers: fixed losses, exact resumption, the same course on any number of workers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from pipeline.training.checkpoints import read_checkpoint, write_checkpoint
from pipeline.training.distributed import Agreement
from pipeline.training.loop import DivergedError, Material, Trainer
from tests.training.material import CPU, RECIPE, batches, recipe, run, trainer

GOLDEN = Path(__file__).parent / "golden_losses.json"
# Small steps keep the rounding of one processor's kernels from growing into another's numbers.
GENTLE = {**RECIPE["optimizer"], "learning_rate": 5e-5}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def losses(training: Trainer) -> list[float]:
    return [point.training_loss for point in training.curve]


def weights(training: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in training.network.state_dict().items()}


def assert_same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_twenty_steps_of_resnet20_give_the_stored_losses() -> None:
    training = trainer("resnet20", batch_size=32, bn_images=16, optimizer=GENTLE)
    run(training, 20)
    assert losses(training) == pytest.approx(json.loads(GOLDEN.read_text())["resnet20"], abs=1e-5)


def test_the_first_loss_is_that_of_the_untrained_network() -> None:
    training = trainer(curve_every=1, bn_images=16)
    images, labels = next(batches(16)(0))
    training.network.train()
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(training.network(images), labels).item()
    run(training, 1)
    assert losses(training)[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("stop", [3, 10, 17])
def test_a_training_resumed_anywhere_ends_in_the_same_bits(stop: int, tmp_path: Path) -> None:
    undisturbed = trainer(curve_every=4, test_every=20)
    run(undisturbed, 20)
    undisturbed.finish()

    first = trainer(curve_every=4, test_every=20)
    run(first, stop)
    write_checkpoint(tmp_path, *first.state())
    second = trainer(curve_every=4, test_every=20)
    second.restore(*read_checkpoint(tmp_path))
    run(second, 20)
    second.finish()

    assert_same_bits(weights(undisturbed), weights(second))
    assert losses(second) == losses(undisturbed)
    assert [point.iteration for point in second.curve] == [4, 8, 12, 16, 20]
    assert [point.learning_rate for point in second.curve] == pytest.approx([0.01, 0.01, 0.001, 0.0001, 0.0001])


def test_dropout_takes_the_same_course_after_a_resumption(tmp_path: Path) -> None:
    def fresh() -> Trainer:
        torch.manual_seed(1)
        network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(768, 10))
        return Trainer(Material(network, batches(16), 64, seed=0), recipe(), CPU)

    undisturbed, first, second = fresh(), fresh(), fresh()
    run(undisturbed, 8)
    run(first, 5)
    write_checkpoint(tmp_path, *first.state())
    second.restore(*read_checkpoint(tmp_path))
    run(second, 8)
    assert_same_bits(weights(undisturbed), weights(second))


def test_dropout_is_the_parts_whichever_worker_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def dropped(rank: int, workers: int) -> list[torch.Tensor]:
        monkeypatch.setattr("pipeline.training.loop.world", lambda: (rank, workers))
        monkeypatch.setattr("tests.training.material.world", lambda: (rank, workers))
        network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(768, 10))
        masks: list[torch.Tensor] = []
        network[1].register_forward_hook(lambda module, given, made: masks.append(made == 0))
        run(Trainer(Material(network, batches(16), 64, seed=0), recipe(), CPU), 2)
        return masks

    alone, first, second = dropped(0, 1), dropped(0, 2), dropped(1, 2)
    assert len(alone) == 4
    assert not torch.equal(alone[0], alone[1])
    assert all(map(torch.equal, alone, [first[0], second[0], first[1], second[1]]))


def test_parts_of_a_batch_add_up_to_one_step_over_all_of_it() -> None:
    def without_bn(bn_images: int) -> Trainer:
        torch.manual_seed(1)
        network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 10))
        return Trainer(Material(network, batches(16), 64, seed=0), recipe(bn_images=bn_images), CPU)

    whole, parts = without_bn(16), without_bn(4)
    run(whole, 3)
    run(parts, 3)
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_a_loss_that_is_not_finite_stops_the_training() -> None:
    def poisoned(start: int):
        for images, labels in batches(16)(start):
            yield images * float("nan"), labels

    with pytest.raises(DivergedError, match=r"nan at iteration 2: lower training\.optimizer\.learning_rate"):
        run(trainer(material={"batches": poisoned}, curve_every=2, test_every=2), 20)


def test_test_errors_are_measured_when_due_and_leave_training_as_it_was() -> None:
    plain = trainer()
    run(plain, 20)
    counted = []

    def count(network: torch.nn.Module) -> tuple[int, int]:
        assert not network.training
        counted.append(1)
        return 3, 12

    watched = trainer(material={"test_errors": count})
    run(watched, 20)
    assert [point.iteration for point in watched.curve if point.test_error is not None] == [5, 10, 15, 20]
    assert watched.curve[-1].test_error == 25.0
    assert len(counted) == 4
    assert losses(watched) == losses(plain)


def _worker(rank: int, workers: int, out: Path) -> None:
    torch.set_num_threads(1)
    if workers > 1:
        dist.init_process_group("gloo", f"file://{out}.rendezvous", rank=rank, world_size=workers)
    training = trainer("resnet20", iterations=10, schedule={"kind": "steps", "milestones": [8], "factor": 0.1})
    run(training, 10)
    training.finish()
    tensors, _ = training.state()
    agreement = Agreement(CPU)
    agreed = [agreement.share(number) for number in (0, rank, 3 * (workers - 1 - rank), 0)]
    if rank == 0:
        torch.save({"losses": losses(training), "tensors": tensors, "agreed": agreed}, out)
    if workers > 1:
        dist.destroy_process_group()


@pytest.mark.slow
def test_two_workers_take_the_course_of_one(tmp_path: Path) -> None:
    _worker(0, 1, tmp_path / "one")
    mp.spawn(_worker, (2, tmp_path / "two"), nprocs=2)
    one = torch.load(tmp_path / "one", weights_only=True)
    two = torch.load(tmp_path / "two", weights_only=True)
    assert (one["agreed"], two["agreed"]) == ([0, 0, 0, 0], [0, 0, 1, 3])
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-4)
    for name, tensor in _without_counters(one["tensors"]).items():
        torch.testing.assert_close(two["tensors"][name], tensor, rtol=1e-3, atol=1e-3, msg=name)


def _without_counters(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Two workers share the parts of a batch, so that each one's BN counts half of them."""
    return {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}


def test_workers_that_cannot_share_the_batch_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.training.loop.world", lambda: (0, 3))
    with pytest.raises(ValueError, match=r"cluster\.workers: 3 cannot share training\.batch_size 16"):
        trainer()
