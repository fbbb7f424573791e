"""The sections of params.yaml: each key with its type, bounds and meaning."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from pipeline.section import Option, Percent, Precision, Section, Size, SizeRange, Sizes


def _require_fit(crop: int, shorter_side: int | None) -> None:
    if shorter_side is not None and crop > shorter_side:
        raise ValueError(f"crop: {crop} does not fit into the shorter side {shorter_side}")


class Holdout(Section):
    """Training images kept apart for model selection; the test set selects nothing."""

    images: int = Field(ge=0)
    """How many; 0 keeps none apart."""
    seed: int = Field(ge=0)
    balanced: bool
    """The same number of every class (true) or drawn at random from all (false)."""
    train_on: bool
    """Train on the held-out images too, as for a final figure once nothing is left to select."""

    @property
    def kept(self) -> bool:
        """Whether some images are held out of training."""
        return self.images > 0 and not self.train_on


class Mean(Section):
    """What is subtracted from each image (paper, section 3.4: the per-pixel mean)."""

    kind: Literal["per_pixel", "per_channel"]
    shorter_side: Size | None
    """Training images are resized to this shorter side before averaging; null averages them as stored."""
    crop: Size
    """Side of the centre crop that is averaged, and so of the mean image."""
    divide_by_std: bool
    """Divide by the per-channel standard deviation as well; the paper doesn't."""

    @model_validator(mode="after")
    def _fits(self) -> Mean:
        _require_fit(self.crop, self.shorter_side)
        return self


class Data(Section):
    """Where the images come from and how the store keeps them."""

    source: Literal["digits", "cifar10", "ilsvrc2012", "class_folders", "hf_parquet"]
    url: str | None
    """Any fsspec URL or path of the source; null for the bundled digits."""
    store: str | None
    """URL prefix of the image store; null keeps it under data/<experiment>/."""
    keep: Literal["decoded", "encoded"]
    """Keep pixels (small images of one size) or the JPEG/PNG bytes as they came."""
    size: Size | None
    """Side to which decoded images are resized; null keeps the source's own size."""
    limit_shorter_side: Size | None
    """Re-encode larger images to this shorter side; null keeps the bytes as they came."""
    shard_images: Size
    """Images a shard, and so a task; decoded ones are all in memory at once."""
    memory_mib: Size = 64
    """A task writes encoded images out as soon as it holds so many MiB of them."""
    on_bad_image: Literal["error", "skip"]
    max_pixels: Size
    """An image of more pixels counts as bad (a decompression bomb)."""
    holdout: Holdout
    mean: Mean

    @model_validator(mode="after")
    def _consistent(self) -> Data:
        if self.source != "digits" and not self.url:
            raise ValueError(f"url: null, but source '{self.source}' has to be read from somewhere: give a path or URL")
        if self.keep == "encoded" and self.size is not None:
            raise ValueError(f"size: {self.size} resizes decoded images, but keep is 'encoded': set size to null")
        if self.keep == "decoded" and self.limit_shorter_side is not None:
            raise ValueError("limit_shorter_side: re-encodes images, but keep is 'decoded': set it to null")
        return self


class Augmentation(Section):
    """Training-time views of an image (paper, sections 3.4 and 4.2)."""

    scale: SizeRange | None
    """The shorter side is drawn uniformly from this range; null leaves the stored size."""
    pad: int = Field(ge=0)
    """Zeros added on each side, after the mean is subtracted, before the crop."""
    crop: Size
    mirror: bool
    color_noise: float = Field(ge=0)
    """Standard deviation of the AlexNet PCA colour noise, in units of the eigenvalues' roots; 0 for none."""

    @model_validator(mode="after")
    def _consistent(self) -> Augmentation:
        if self.scale is None:
            return self
        low, high = self.scale
        if low > high:
            raise ValueError(f"scale: [{low}, {high}] is empty: the first figure must not exceed the second")
        if self.crop > low + 2 * self.pad:
            raise ValueError(f"crop: {self.crop} does not fit into the smallest scale {low} padded by {self.pad}")
        return self


class Optimizer(Section):
    """Stochastic gradient descent (paper, section 3.4)."""

    learning_rate: float = Field(gt=0)
    momentum: float = Field(ge=0, lt=1)
    nesterov: bool
    weight_decay: float = Field(ge=0)
    decay_norm_and_bias: bool
    """Apply weight decay to BN's scale and shift and to biases too, as the paper's solver does."""
    momentum_form: Literal["torch", "caffe"]
    """torch: v = m·v + g, w -= lr·v; caffe: v = m·v + lr·g, w -= v. They differ after a change of rate."""


class Steps(Section):
    """The rate is multiplied by `factor` at each milestone."""

    kind: Literal["steps"]
    milestones: Sizes
    """Iterations, ascending."""
    factor: float = Field(gt=0, lt=1)

    @model_validator(mode="after")
    def _ascending(self) -> Steps:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones: {list(self.milestones)} must be strictly ascending")
        return self


class Plateau(Section):
    """The rate is multiplied by `factor` when the watched error stops falling (paper: "when the error plateaus")."""

    kind: Literal["plateau"]
    factor: float = Field(gt=0, lt=1)
    watch: Literal["training_error", "holdout_error"]
    patience: Size
    """Curve points at which the watched error was measured, without a new lowest, before the rate falls."""
    threshold: float = Field(ge=0)
    """By how many percentage points an error must fall to count as lower."""
    drops: Size
    """How often the rate may fall."""


class Warmup(Section):
    """A smaller rate at the start, until training has taken hold (paper, section 4.2, n = 18)."""

    learning_rate: float = Field(gt=0)
    until_training_error: Percent
    """Percent, of the images seen since the last curve point."""


class CenterCrop(Section):
    """One view: the centre crop of the image resized to a shorter side (the paper's 1-crop)."""

    shorter_side: Size | None
    crop: Size

    @model_validator(mode="after")
    def _fits(self) -> CenterCrop:
        _require_fit(self.crop, self.shorter_side)
        return self


class Training(Section):
    """The recipe of one run."""

    batch_size: Size
    """Images an iteration, over all workers together."""
    bn_images: Size
    """Images one batch normalisation sees (the paper's mini-batch on one GPU)."""
    iterations: Size
    optimizer: Optimizer
    schedule: Steps | Plateau = Field(discriminator="kind")
    warmup: Warmup | None
    bn_recompute_images: int = Field(ge=0)
    """Training images over which BN statistics are averaged after training; 0 keeps the moving average."""
    label_smoothing: float = Field(ge=0, lt=1)
    precision: Precision
    """auto: bf16 autocast where the hardware gains by it, fp32 otherwise."""
    compile: bool
    deterministic: bool
    """Deterministic kernels: a resumed training ends in the same bits as an undisturbed one (fp32)."""
    curve_every: Size
    """Iterations between the points of the error curves."""
    test_every: Size
    """Iterations between the curve points at which test and holdout error are measured too."""
    curve_view: CenterCrop | None
    """The view by which they are measured (paper, Figure 4: centre crops); null takes the image as stored."""
    options: dict[str, Option]
    """Options of the network's builder, such as stride_in for the bottlenecks."""

    @model_validator(mode="after")
    def _consistent(self) -> Training:
        if self.batch_size % self.bn_images:
            raise ValueError(f"bn_images: {self.bn_images} must divide batch_size {self.batch_size}")
        if isinstance(self.schedule, Steps) and any(m >= self.iterations for m in self.schedule.milestones):
            raise ValueError(
                f"schedule.milestones: {list(self.schedule.milestones)} must lie below iterations {self.iterations};"
                f" with fewer, set them too: -S 'training.schedule.milestones=[{self.iterations // 2 or ''}]'"
            )
        if self.test_every % self.curve_every:
            raise ValueError(f"test_every: {self.test_every} must be a multiple of curve_every {self.curve_every}")
        if self.optimizer.nesterov and self.optimizer.momentum_form == "caffe":
            raise ValueError("optimizer.nesterov: true is only there for momentum_form 'torch'")
        return self


class TenCrop(CenterCrop):
    """Corners, centre, and their mirror images; softmax outputs are averaged."""


class MultiScale(Section):
    """Fully convolutional, without cropping, at several scales (paper, section 3.4)."""

    shorter_sides: Sizes = Field(min_length=1)
    mirror: bool
    """Average with the mirror image's scores; not stated in the paper."""
    average: Literal["softmax", "scores"]
    """Average probabilities, or scores before the softmax; not stated in the paper."""
    report_others: bool = False
    """Report the three other combinations of `mirror` and `average` too, from the same forward passes."""

    @property
    def way(self) -> str:
        """This combination's name, of those in `ways`."""
        return f"multi_scale_{self.average}{'' if self.mirror else '_unmirrored'}"

    def ways(self) -> dict[str, MultiScale]:
        """All four combinations of what the paper leaves open, by name, this one among them."""
        averages: tuple[Literal["softmax", "scores"], ...] = ("softmax", "scores")
        found = [
            self.model_copy(update={"mirror": mirror, "average": average, "report_others": False})
            for average in averages
            for mirror in (True, False)
        ]
        return {protocol.way: protocol for protocol in found}


class SingleView(Section):
    """The image as stored (CIFAR-10)."""


class Protocols(Section):
    """The evaluation protocols at hand; one left out is not evaluated."""

    single_view: SingleView | None = None
    center_crop: CenterCrop | None = None
    ten_crop: TenCrop | None = None
    multi_scale: MultiScale | None = None

    def chosen(self) -> dict[str, SingleView | CenterCrop | TenCrop | MultiScale]:
        """The protocols that are set, by name."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: protocol for name, protocol in found.items() if protocol is not None}


class Evaluation(Section):
    """How a trained network is tested."""

    split: Literal["test", "val"]
    batch_size: Size
    """Views that go through the network at once; changes speed, not results."""
    precision: Precision
    compile: bool = False
    """torch.compile, by all protocols but multi_scale; changes speed and rounding alone."""
    protocols: Protocols
    unlabelled_split: Literal["test", "val"] | None = None
    """A split without labels that is predicted too, for a submission to a test server; null for none."""

    @model_validator(mode="after")
    def _some(self) -> Evaluation:
        if not self.protocols.chosen():
            raise ValueError(f"protocols: none is set; allowed: {', '.join(Protocols.model_fields)}")
        return self


class EnsembleSearch(Section):
    """An ensemble whose members are chosen on images other than those that it is reported on."""

    search: Literal["greedy", "exhaustive"]
    """greedy: forward selection, a member at a time while the top-1 error falls; exhaustive: the best subset."""
    candidates: list[str] | None
    """Runs to choose from; null for all."""
    select_on: Literal["holdout", "half"]
    """The held-out training images, or a drawn half of the evaluated split, whose other half then reports."""
    most: int = Field(ge=2)
    """Members at most."""
    seed: int = Field(ge=0)
    """Of the half's draw."""


class Run(Section):
    """A run's own changes to the recipe, by the keys of `training`."""

    training: dict[str, Any] = Field(default_factory=dict)


class Report(Section):
    """What the report says about the data at hand."""

    title: str
    dataset: str
    """The data in words, as shown beside every figure."""
    comparable: bool
    """The data are the paper's own, so that its figures may be compared with ours."""
    note: str | None
    """A caveat shown beside every figure; null for none."""
