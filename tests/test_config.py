"""params.yaml: every refusal names the key, its value and what is allowed."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import compose_and_dump
from pydantic import ValidationError

from pipeline.config import Params, check_networks, deep_merge, load_params, main, parse_params, split_run

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"


def compose(folder: Path, overrides: list[str]) -> Path:
    """The parameters file that DVC writes for these choices."""
    output = folder / "params.yaml"
    compose_and_dump(output, str(CONF), None, "config", "", overrides)
    return output


FIXED = [
    "training.iterations=600",
    "training.schedule.milestones=[300,450]",
    "training.batch_size=64",
    "training.bn_images=64",
    "augmentation.scale=[20,20]",
    "augmentation.crop=16",
    "data.mean.crop=16",
    "evaluation.protocols.ten_crop={shorter_side:20,crop:16}",
]
"""Figures that the messages below repeat, whatever the preset has."""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    output = compose(tmp_path_factory.mktemp("digits"), ["experiment=digits", "cluster=local", *FIXED])
    return yaml.safe_load(output.read_text(encoding="utf-8"))


def changed(tree: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of the tree with one key, at any depth, set."""
    result = copy.deepcopy(tree)
    *sections, last = key.split("/")
    node = result
    for section in sections:
        node = node[section]
    node[last] = value
    return result


def refusal(tree: Any) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the caller checks the words
        parse_params(tree, "params.yaml")
    return str(caught.value)


def test_values_of_the_digits_experiment(digits: dict[str, Any]) -> None:
    params = parse_params(digits)
    assert params.augmentation.scale == (20, 20)
    assert params.training.optimizer.weight_decay == 1e-4
    assert params.evaluation.protocols.chosen().keys() == {"center_crop", "ten_crop", "multi_scale"}
    with pytest.raises(ValidationError, match="frozen"):
        params.training.batch_size = 1


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("trainning", "training"),
        ("data/holdout/image", "images"),
        ("training/optimizer/learning_rat", "learning_rate"),
        ("training/learning_rate", "training.optimizer.learning_rate"),
        ("training/momentun", "training.optimizer.momentum"),
        ("training/schedule/milestone", "milestones"),
        ("evaluation/protocols/ten_crp", "ten_crop"),
        ("evaluation/protocols/multi_scale/averages", "average"),
        ("evaluation/check_every", None),
        ("cluster/worker", "workers"),
        ("runs/resnet20-s0/trainig", "training"),
    ],
)
def test_unknown_key_is_named_with_what_is_allowed(digits: dict[str, Any], key: str, meant: str | None) -> None:
    message = refusal(changed(digits, key, 7))
    assert message.startswith(f"params.yaml: {key.replace('/', '.')}: unknown key (value 7); allowed here: ")
    assert "\n" not in message
    if meant:
        assert message.endswith(f"; did you mean '{meant}'?")


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("training/optimizer/learning_rate", -0.1, "-0.1 is not allowed: Input should be greater than 0"),
        ("training/optimizer/learning_rate", float("inf"), "inf is not allowed: Input should be a finite number"),
        ("training/optimizer/learning_rate", float("nan"), "nan is not allowed: Input should be a finite number"),
        ("training/optimizer/momentum", 1.0, "1.0 is not allowed: Input should be less than 1"),
        ("training/batch_size", "64", "'64' is not allowed: Input should be a valid integer"),
        ("training/batch_size", 64.0, "64.0 is not allowed: Input should be a valid integer"),
        ("training/batch_size", True, "True is not allowed: Input should be a valid integer"),
        ("training/compile", 1, "1 is not allowed: Input should be a valid boolean"),
        ("training/precision", "fp16", "'fp16' is not allowed: Input should be 'auto', 'fp32' or 'bf16'"),
        ("training/optimizer/weight_decay", "1e-4", "write it with a point, such as 1.0e-4"),
        ("training/options", {"shortcut": ["A"]}, "['A'] is not allowed: give text, a number, true or false"),
        ("data", None, "None is not allowed: Input should be a valid dictionary"),
        ("data/source", "mnist", "'mnist' is not allowed: Input should be 'digits', 'cifar10'"),
        ("augmentation/scale", [20], "[20] is not allowed: give two figures"),
        ("runs", {}, "{} is not allowed: Dictionary should have at least 1 item"),
        ("experiment", "My Digits", "'My Digits' is not allowed: String should match"),
        ("evaluation/protocols/multi_scale/shorter_sides", [], "is not allowed"),
        ("cluster/workers", [2], "[2] is not allowed: give a number of at least 1, or [least, most]"),
        ("cluster/workers", [2, 1], "[2, 1] is not allowed: give a number of at least 1, or [least, most]"),
        ("cluster/workers", 1.5, "1.5 is not allowed: give a number of at least 1, or [least, most]"),
        ("cluster/workers", True, "True is not allowed: give a number of at least 1, or [least, most]"),
        ("cluster/gpus_per_worker", 2, "2 with 1 workers, but a worker trains on one GPU"),
    ],
)
def test_value_is_named_with_what_is_allowed(digits: dict[str, Any], key: str, value: Any, reason: str) -> None:
    message = refusal(changed(digits, key, value))
    assert message.startswith(f"params.yaml: {key.replace('/', '.')}")
    assert reason in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("training/bn_images", 48, "training.bn_images: 48 must divide batch_size 64"),
        ("training/schedule/milestones", [450, 300], "training.schedule.milestones: [450, 300] must be strictly asc"),
        ("training/schedule/milestones", [300, 600], "training.schedule.milestones: [300, 600] must lie below"),
        ("training/schedule/kind", "cosine", "training.schedule.kind: 'cosine' is not allowed: use one of 'steps'"),
        ("training/schedule", {"milestones": [1], "factor": 0.1}, "training.schedule.kind: missing"),
        ("augmentation/scale", [30, 20], "augmentation.scale: [30, 20] is empty"),
        ("augmentation/crop", 24, "augmentation.crop: 24 does not fit into the smallest scale 20"),
        ("data/mean/crop", 12, "data.mean.crop: 12 must equal augmentation.crop 16"),
        ("data/mean/crop", 24, "data.mean.crop: 24 does not fit into the shorter side 20"),
        ("data/source", "cifar10", "data.url: null, but source 'cifar10' has to be read from somewhere"),
        ("data/limit_shorter_side", 256, "data.limit_shorter_side: re-encodes images, but keep is 'decoded'"),
        ("evaluation/protocols", {}, "evaluation.protocols: none is set; allowed: single_view, center_crop"),
        ("evaluation/protocols/ten_crop/crop", 21, "evaluation.protocols.ten_crop.crop: 21 does not fit"),
        (
            "ensembles/resnets",
            ["resnet20-s0", "resnet1-s0"],
            "ensembles.resnets: no run resnet1-s0; there are: plain20",
        ),
        ("ensembles/resnets", ["resnet20-s0"], "ensembles.resnets: ['resnet20-s0'] must name at least two runs"),
        ("ensembles/resnets", ["resnet20-s0", "resnet20-s0"], "must name at least two runs, each once"),
        (
            "ensemble_searches/searched/candidates",
            ["resnet20-s0", "resnet1-s0"],
            "ensemble_searches.searched.candidates: no run resnet1-s0; there are: plain20",
        ),
        ("ensemble_searches/searched/candidates", ["resnet20-s0"], "must name at least two runs, each once"),
        ("ensembles/resnet20-s0", ["resnet20-s0", "plain20-s0"], "ensembles.resnet20-s0: is named as a run is"),
        (
            "ensemble_searches/resnets",
            {"search": "greedy", "candidates": None, "select_on": "half", "most": 3, "seed": 0},
            "ensemble_searches.resnets: there is an ensemble of this name already",
        ),
        ("ensemble_searches/searched/search", "best", "'best' is not allowed: Input should be 'greedy'"),
        ("ensemble_searches/searched/members", 3, "ensemble_searches.searched.members: unknown key"),
        ("data/holdout/images", 0, "ensemble_searches.searched.select_on: 'holdout' needs images that are held out"),
        ("runs/resnet20", {"training": {}}, "runs.resnet20: a run is named <network>-s<seed>"),
        (
            "runs/resnet20-s0/training",
            {"optimizer": {"learning_rate": -1.0}},
            "runs.resnet20-s0.training.optimizer.learning_rate: -1.0 is not allowed",
        ),
        (
            "runs/resnet20-s0/training",
            {"optimizer": {"learnin_rate": 1.0}},
            "runs.resnet20-s0.training.optimizer.learnin_rate: unknown key (value 1.0); allowed here: learning_rate",
        ),
        ("runs/resnet20-s0/training", {"iterations": 400}, "runs.resnet20-s0.training.schedule.milestones: [300, 450]"),
    ],
)
def test_contradiction_is_named(digits: dict[str, Any], key: str, value: Any, message: str) -> None:
    assert message in refusal(changed(digits, key, value))


def test_workers_that_cannot_share_the_batch_are_refused_with_what_can(digits: dict[str, Any]) -> None:
    parts = changed(digits, "training/bn_images", 16)
    assert parse_params(changed(parts, "cluster/workers", 4)).cluster.counts(64, 16) == [4]
    assert parse_params(changed(parts, "cluster/workers", [1, 8])).cluster.counts(64, 16) == [1, 2, 4]
    for asked in (3, 8, [5, 7]):
        assert refusal(changed(parts, "cluster/workers", asked)) == (
            f"params.yaml: cluster.workers: {asked} cannot share training.batch_size 64 in parts of training.bn_images"
            " 16; what can: 1, 2, 4"
        )


def test_a_run_that_workers_cannot_share_is_named(digits: dict[str, Any]) -> None:
    tree = changed(changed(digits, "training/bn_images", 16), "cluster/workers", 4)
    message = refusal(changed(tree, "runs/resnet20-s0/training", {"bn_images": 32}))
    assert message.startswith("params.yaml: cluster.workers: 4 cannot share training.batch_size 64 in parts of")
    assert message.endswith("training.bn_images 32; what can: 1, 2 (resnet20-s0)")


def test_watching_a_holdout_that_is_not_there(digits: dict[str, Any]) -> None:
    plateau = {"kind": "plateau", "factor": 0.1, "watch": "holdout_error", "patience": 3, "threshold": 0.1, "drops": 2}
    tree = changed(digits, "training/schedule", plateau)
    assert parse_params(tree).data.holdout.images > 0
    for key, value in (("images", 0), ("train_on", True)):
        message = refusal(changed(tree, f"data/holdout/{key}", value))
        assert "training.schedule.watch: 'holdout_error' needs images that are held out of training" in message


def test_a_run_alone_watching_a_holdout_that_is_not_there(digits: dict[str, Any]) -> None:
    plateau = {"kind": "plateau", "factor": 0.1, "watch": "holdout_error", "patience": 3, "threshold": 0.1, "drops": 2}
    tree = changed(digits, "runs/resnet20-s0", {"training": {"schedule": plateau}})
    assert parse_params(tree).training_of("resnet20-s0").schedule.kind == "plateau"
    message = refusal(changed(tree, "data/holdout/images", 0))
    assert "runs.resnet20-s0.training.schedule.watch: 'holdout_error' needs images" in message


def test_a_seed_that_torch_would_not_take(digits: dict[str, Any]) -> None:
    parse_params(changed(digits, f"runs/resnet20-s{2**32 - 1}", {"training": {}}))
    message = refusal(changed(digits, f"runs/resnet20-s{2**32}", {"training": {}}))
    assert f"runs.resnet20-s{2**32}: the seed {2**32} must lie below {2**32}" in message


def test_every_problem_is_listed_at_once(digits: dict[str, Any]) -> None:
    tree = changed(changed(digits, "trainin", {}), "training/optimizer/momentum", 2)
    lines = refusal(changed(tree, "cluster/workers", 0)).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["training.optimizer.momentum", "cluster.workers", "trainin"]


def test_missing_key_is_named(digits: dict[str, Any]) -> None:
    tree = copy.deepcopy(digits)
    del tree["training"]["optimizer"]["nesterov"]
    assert refusal(tree) == "params.yaml: training.optimizer.nesterov: missing"


def test_file_that_is_not_parameters(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    with pytest.raises(ValueError, match="no such file"):
        load_params(path)
    path.write_text("training: [1", encoding="utf-8")
    with pytest.raises(ValueError, match="not valid YAML"):
        load_params(path)
    path.write_text("training:\n  batch_size: 64\n  batch_size: 128\n", encoding="utf-8")
    with pytest.raises(ValueError, match="'batch_size' stands there twice") as caught:
        load_params(path)
    assert "line 3" in str(caught.value)
    path.write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match=r"None is not allowed.*with the keys experiment, data, augmentation"):
        load_params(path)
    path.write_bytes(b"title: caf\xe9")
    with pytest.raises(ValueError, match=r"params\.yaml: no text in UTF-8 \(byte 10\)"):
        load_params(path)
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        load_params(tmp_path)


def test_run_without_a_section_is_told_its_keys(digits: dict[str, Any]) -> None:
    found = refusal(changed(digits, "runs/resnet32-s0", None))
    assert found.startswith("params.yaml: runs.resnet32-s0: None is not allowed")
    assert found.endswith("with the keys training")


def test_runs_own_recipe(digits: dict[str, Any]) -> None:
    plateau = {"kind": "plateau", "factor": 0.2, "watch": "training_error", "patience": 3, "threshold": 0.1, "drops": 2}
    own = {"optimizer": {"learning_rate": 0.01}, "schedule": plateau}
    params = parse_params(changed(digits, "runs/resnet20-s0", {"training": own}))
    recipe = params.training_of("resnet20-s0")
    assert recipe.optimizer.learning_rate == 0.01
    assert recipe.optimizer.momentum == params.training.optimizer.momentum
    assert recipe.schedule.model_dump() == plateau
    assert params.training_of("plain20-s0") == params.training
    with pytest.raises(ValueError, match="no run 'resnet20-s9'; there are: plain20-s0"):
        params.training_of("resnet20-s9")


def test_deep_merge_changes_neither_side() -> None:
    base, changes = {"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 3}, "d": [2]}
    assert deep_merge(base, changes) == {"a": {"b": 3, "c": 2}, "d": [2]}
    assert base == {"a": {"b": 1, "c": 2}, "d": [1]}


def test_split_run() -> None:
    assert split_run("resnet110-s3") == ("resnet110", 3)
    for name in ("resnet110", "resnet110-3", "-s3", "resnet110-s", "ResNet-s1"):
        with pytest.raises(ValueError, match="named <network>-s<seed>"):
            split_run(name)


def with_run(digits: dict[str, Any], run: str, training: dict[str, Any]) -> Params:
    return parse_params(changed(digits, f"runs/{run}", {"training": training}))


@pytest.mark.parametrize(
    ("run", "options", "message"),
    [
        ("resnet21-s0", {}, "runs.resnet21-s0: unknown network 'resnet21'"),
        ("resnet20-s1", {"depth": 3}, "runs.resnet20-s1.training.options: unknown option 'depth' of resnet20"),
        ("resnet20-s1", {"shortcut": "D"}, "runs.resnet20-s1.training.options: unknown shortcut 'D'"),
        ("resnet50-s0", {"stride_in": "pool"}, "unknown stride_in 'pool': use one of conv1x1, conv3x3"),
    ],
)
def test_network_and_options_are_checked(
    digits: dict[str, Any], run: str, options: dict[str, Any], message: str
) -> None:
    params = with_run(digits, run, {"options": options})
    with pytest.raises(ValueError, match="params: ") as caught:
        check_networks(params)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_options_that_the_networks_take(digits: dict[str, Any]) -> None:
    check_networks(with_run(digits, "resnet20-s1", {"options": {"shortcut": "B"}}))


def test_main_prints_a_line_or_the_errors(
    digits: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(digits), encoding="utf-8")
    assert main([str(path)]) == 0
    out = capsys.readouterr().out
    assert "experiment digits, 4 runs" in out
    assert ", 2 ensembles," in out  # one declared, one searched
    path.write_text(yaml.safe_dump(changed(digits, "runs/resnet21-s0", {"training": {}})), encoding="utf-8")
    assert main([str(path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "runs.resnet21-s0: unknown network 'resnet21'" in captured.err


def test_command_refuses_a_typo(digits: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(changed(digits, "training/learning_rat", 0.1)), encoding="utf-8")
    command = [sys.executable, "-m", "pipeline.config", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ended.returncode == 1
    assert ended.stderr.strip().endswith("did you mean 'training.optimizer.learning_rate'?")


def test_parameters_are_read_without_torch() -> None:
    code = "import sys, pipeline.config; pipeline.config.load_params(); print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ended.stdout.strip() == "False"
