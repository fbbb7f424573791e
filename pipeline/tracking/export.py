"""A registered model as one file that needs none of this code: ONNX, torch.export or TorchScript."""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.data.statistics import InputStatistics, normalise
from pipeline.storage import atomic_file
from pipeline.tracking.inference import default_protocol
from pipeline.tracking.loading import Member, load_modules

Run = Callable[[np.ndarray], np.ndarray]
SIDE = 32
"""Of images whose size neither protocol nor mean image tells."""
PARITY = 1e-5
_BATCHES = (3, 5, 1)


class Exported(nn.Module):
    """Images uint8 (N, side, side, 3), RGB, as probabilities float32 (N, classes): an average over the members."""

    def __init__(self, members: Sequence[Member], side: int) -> None:
        super().__init__()
        self.networks = nn.ModuleList(member.network for member in members)
        for index, member in enumerate(members):
            mean, std = _input_arrays(member.statistics, side)
            self.register_buffer(f"mean_{index}", mean)
            self.register_buffer(f"std_{index}", std)

    def forward(self, images: Tensor) -> Tensor:
        """One view as it is given: cutting it out of a larger image is the caller's."""
        pixels = images.float()
        each = []
        for index, network in enumerate(self.networks):
            inputs = (pixels - getattr(self, f"mean_{index}")) / getattr(self, f"std_{index}")
            each.append(network(inputs.permute(0, 3, 1, 2)).softmax(1))
        return torch.stack(each).mean(0)


def export(uri: str, file: Path, form: str | None = None, side: int | None = None) -> float:
    """Write a registered model to `file` and compare it with the model; the largest difference of a probability.

    `form` is onnx, torch_export or torchscript, by default what the suffix says (.onnx, .pt2, .pt). The file takes any
    number of images uint8 (N, side, side, 3) and gives probabilities. ValueError for an unknown form, a package that is
    missing, or a difference above 1e-5, in which case there is no file.
    """
    form = form or next((name for name, (suffix, _, _) in FORMATS.items() if file.suffix == suffix), None)
    if form not in FORMATS:
        raise ValueError(f"{file}: no format goes by '{file.suffix}'; give one of {', '.join(FORMATS)}")
    _, write, read = FORMATS[form]
    members, evaluation = load_modules(uri)
    protocol = evaluation.protocols.chosen()[default_protocol(evaluation.protocols.chosen())]
    side = side or _side(getattr(protocol, "crop", None), members)
    module = Exported(members, side).eval()
    with torch.no_grad(), atomic_file(file) as partial, _quiet():
        write(module, _images(_BATCHES[0], side, 0), partial)
        difference = _difference(members, read(partial), side)
        if not difference <= PARITY:
            raise ValueError(f"{file}: probabilities differ from {uri}'s by {difference:.1e}, more than {PARITY:.0e}")
    return difference


def _difference(members: Sequence[Member], run: Run, side: int) -> float:
    """The largest difference between the file's probabilities and the networks' own, for batches of several sizes."""
    largest = 0.0
    for seed, count in enumerate(_BATCHES):
        images = _images(count, side, seed)
        each = [m.network(normalise(images, m.statistics)).softmax(1).double() for m in members]
        expected = torch.stack(each).mean(0).numpy()
        found = run(images.numpy())
        if found.shape != expected.shape:
            raise ValueError(f"the exported model gives {found.shape} for {count} images, not {expected.shape}")
        largest = max(largest, float(np.abs(found - expected).max()))
    return largest


def _side(crop: int | None, members: Sequence[Member]) -> int:
    mean = members[0].statistics.mean
    return crop or (mean.shape[0] if mean.ndim == 3 else SIDE)


def _input_arrays(statistics: InputStatistics, side: int) -> tuple[Tensor, Tensor]:
    std = np.ones(3, np.float32) if statistics.std is None else statistics.std
    return torch.from_numpy(np.array(statistics.mean_for(side, side))), torch.from_numpy(np.array(std))


def _images(count: int, side: int, seed: int) -> Tensor:
    """Smooth random images, between noise and photographs."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    large = nn.functional.interpolate(torch.from_numpy(coarse).permute(0, 3, 1, 2).float(), side, mode="bilinear")
    return large.permute(0, 2, 3, 1).round().to(torch.uint8).contiguous()


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ValueError("onnx: the packages of the extra 'export' are needed: pip install -e '.[export]'") from None


def _write_onnx(module: nn.Module, example: Tensor, file: Path) -> None:
    _package("onnxscript")
    dynamic = {"images": {0: torch.export.Dim.DYNAMIC}}
    program = torch.onnx.export(
        module,
        (example,),
        input_names=["images"],
        output_names=["probabilities"],
        dynamo=True,
        dynamic_shapes=dynamic,
        verbose=False,
    )
    assert program is not None
    program.save(str(file), external_data=False)


def _read_onnx(file: Path) -> Run:
    session = _package("onnxruntime").InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(None, {"images": images})[0])


def _write_torch_export(module: nn.Module, example: Tensor, file: Path) -> None:
    program = torch.export.export(module, (example,), dynamic_shapes={"images": {0: torch.export.Dim.AUTO}})
    with open(file, "wb") as opened:
        torch.export.save(program, opened)


def _read_torch_export(file: Path) -> Run:
    with open(file, "rb") as opened:
        module = torch.export.load(opened).module()
    return lambda images: module(torch.from_numpy(images)).detach().numpy()


def _write_torchscript(module: nn.Module, example: Tensor, file: Path) -> None:
    torch.jit.save(torch.jit.trace(module, example), str(file))


def _read_torchscript(file: Path) -> Run:
    module = torch.jit.load(str(file))
    return lambda images: module(torch.from_numpy(images)).detach().numpy()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's announcements that TorchScript gives way to torch.export."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


FORMATS: dict[str, tuple[str, Callable[[nn.Module, Tensor, Path], None], Callable[[Path], Run]]] = {
    "onnx": (".onnx", _write_onnx, _read_onnx),
    "torch_export": (".pt2", _write_torch_export, _read_torch_export),
    "torchscript": (".pt", _write_torchscript, _read_torchscript),
}
