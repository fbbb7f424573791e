"""The presets: each composes with each cluster and passes, and has the recipe that it is meant to have."""

import subprocess
from pathlib import Path

import pytest
import yaml

from pipeline.config import check_networks, load_params
from pipeline.training.schedule import Schedule
from tests import composing

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
CLUSTERS = sorted(path.stem for path in (CONF / "cluster").glob("*.yaml"))


def compose(folder: Path, overrides: list[str]) -> Path:
    """The parameters file that DVC writes for these choices."""
    return composing.compose(folder / "params.yaml", overrides)


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_preset_composes_and_passes(experiment: str, cluster: str, tmp_path: Path) -> None:
    output = compose(tmp_path, [f"experiment={experiment}", f"cluster={cluster}"])
    params = load_params(output)
    check_networks(params)
    assert params.experiment == experiment
    assert params.cluster.least_workers >= 1
    waits = params.cluster.joining_seconds
    assert waits is None if cluster == "autoscaling" else waits is not None and waits < 60


def test_params_yaml_is_the_composition_of_the_defaults(tmp_path: Path) -> None:
    here = (ROOT / "params.yaml").read_text(encoding="utf-8")  # or composed for another experiment since the commit
    kept = subprocess.run(["git", "-C", ROOT, "show", "HEAD:params.yaml"], capture_output=True, text=True, check=False)
    composed = yaml.safe_load(compose(tmp_path, []).read_text(encoding="utf-8"))
    assert composed in (yaml.safe_load(here), yaml.safe_load(kept.stdout))


def test_digits_is_the_experiment_by_default(tmp_path: Path) -> None:
    assert load_params(compose(tmp_path, [])).experiment == "digits"


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_preset_reads_and_keeps_its_data_in_the_clone(experiment: str, tmp_path: Path) -> None:
    data = load_params(compose(tmp_path, [f"experiment={experiment}"])).data
    assert data.store is None
    assert data.url is None if data.source == "digits" else str(data.url).startswith("datasets/")


def test_url_of_a_preset_is_overridden(tmp_path: Path) -> None:
    overrides = ["experiment=cifar10-jpeg", "data.url=s3://bucket/cifar10"]
    assert load_params(compose(tmp_path, overrides)).data.url == "s3://bucket/cifar10"


def test_warm_up_of_the_cifar10_runs(tmp_path: Path) -> None:
    params = load_params(compose(tmp_path, ["experiment=cifar10"]))
    warming = {run for run in params.runs if params.training_of(run).warmup}
    assert warming == {"plain110-s0", "resnet1202-s0", *(f"resnet110-s{seed}" for seed in range(5))}
    recipe = params.training_of("resnet110-s3")
    schedule = Schedule(recipe.optimizer.learning_rate, recipe.schedule, recipe.warmup)
    assert schedule.rate(0) == 0.01
    schedule.observe(79.9)
    assert [schedule.rate(i) for i in (100, 31_999, 32_000, 48_000)] == pytest.approx([0.1, 0.1, 0.01, 0.001])


def test_networks_without_bn_have_their_own_rate(tmp_path: Path) -> None:
    params = load_params(compose(tmp_path, ["experiment=imagenet"]))
    rates = {run: params.training_of(run).optimizer.learning_rate for run in params.runs}
    assert {run for run, rate in rates.items() if rate == 0.01} == {"vgg16-s0", "googlenet-s0", "prelu_net-s0"}
    assert {rate for run, rate in rates.items()} == {0.01, 0.1}


def test_imagenet_plateau_does_not_watch_what_is_reported(tmp_path: Path) -> None:
    params = load_params(compose(tmp_path, ["experiment=imagenet"]))
    assert params.training.schedule.kind == "plateau"
    assert params.training.schedule.watch == "training_error"
    assert params.data.holdout.train_on
