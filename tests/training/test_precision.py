"""Which number format 'auto' comes to, and that a training keeps to one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from pipeline.training import precision
from pipeline.training.checkpoints import read_checkpoint, write_checkpoint
from pipeline.training.precision import resolve_precision
from tests.training.material import CPU, run, trainer


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch):
    """Pretends a processor: its instructions, and seconds of each trial of a convolution, fp32 and bf16 in turn."""

    def pretend(*, amx: bool, avx512_bf16: bool, seconds: tuple[float, ...] = ()) -> None:
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
        waiting = iter(seconds)
        monkeypatch.setattr(precision, "_seconds", lambda images, weights: next(waiting))
        precision._convolves_faster_in_bf16.cache_clear()

    yield pretend
    precision._convolves_faster_in_bf16.cache_clear()


def test_what_is_asked_for_is_taken(processor) -> None:
    processor(amx=False, avx512_bf16=False)
    assert resolve_precision("bf16", CPU) == "bf16"
    processor(amx=True, avx512_bf16=True)
    assert resolve_precision("fp32", CPU) == "fp32"
    with pytest.raises(ValueError, match="precision: 'fp16' is not one of auto, fp32, bf16"):
        resolve_precision("fp16", CPU)


def test_auto_is_fp32_without_the_instructions_and_bf16_with_amx_neither_being_tried(processor) -> None:
    processor(amx=False, avx512_bf16=False)
    assert resolve_precision("auto", CPU) == "fp32"
    processor(amx=True, avx512_bf16=True)
    assert resolve_precision("auto", CPU) == "bf16"


@pytest.mark.parametrize(("fp32", "bf16", "expected"), [(1.0, 0.5, "bf16"), (1.0, 1.6, "fp32")])
def test_auto_is_the_faster_of_both_where_only_a_trial_can_tell(processor, fp32, bf16, expected) -> None:
    first, interrupted = (9.0, 0.1 * bf16 + 9.0), (fp32 + 5.0, bf16 + 7.0)
    processor(amx=False, avx512_bf16=True, seconds=(*first, *interrupted, *(fp32, bf16) * 6))
    assert resolve_precision("auto", CPU) == expected
    assert resolve_precision("auto", CPU) == expected, "tried a second time"


def test_the_trial_draws_no_numbers_and_leaves_autograd_on() -> None:
    precision._convolves_faster_in_bf16.cache_clear()
    before = torch.get_rng_state()
    assert precision._convolves_faster_in_bf16() in (True, False)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.ones(1, requires_grad=True).sum().requires_grad


def test_a_training_keeps_the_precision_it_began_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(precision, "_fast_bf16", lambda device: True)
    first = trainer(precision="auto")
    run(first, 2)
    write_checkpoint(tmp_path, *first.state())
    monkeypatch.setattr(precision, "_fast_bf16", lambda device: False)
    second = trainer(precision="auto")
    assert (first.precision, second.precision) == ("bf16", "fp32")
    second.restore(*read_checkpoint(tmp_path))
    run(first, 4)
    run(second, 4)
    assert second.precision == "bf16"
    assert second.curve[-1].training_loss == first.curve[-1].training_loss


def _worker(rank: int, out: Path) -> None:
    dist.init_process_group("gloo", f"file://{out}.rendezvous", rank=rank, world_size=2)
    precision._fast_bf16 = lambda device: rank == 0
    (out / str(rank)).write_text(" ".join(trainer(precision=way).precision for way in ("auto", "bf16")))
    dist.destroy_process_group()


@pytest.mark.slow
def test_workers_that_differ_train_in_fp32_together(tmp_path: Path) -> None:
    mp.spawn(_worker, (tmp_path,), nprocs=2)
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["fp32 bf16"] * 2
