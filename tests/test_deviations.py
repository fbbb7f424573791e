"""docs/DEVIATIONS.md: its keys exist, and the presets differ from the paper in nothing that it does not declare."""

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import yaml
from dvc.utils.hydra import compose_and_dump
from pydantic import BaseModel

from pipeline.config import Params, split_run
from pipeline.schema import Training
from tests.paper_values import PAPER, RUNS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "DEVIATIONS.md"

Tree = dict[str, Any]
Declared = dict[str, list["Declaration"]]
ABSENT = "absent"

NEUTRAL = re.compile(
    r"experiment|report\..*|cluster\..*|evaluation\.batch_size|ensemble_searches(\..*)?|.*\.report_others"
    r"|data\.(url|store|keep|shard_images|memory_mib|on_bad_image|max_pixels)"
)
"""What changes no figure: names, places, sizes of portions, and what is done with images that the data don't have."""

BASES = {"cifar10-jpeg": "cifar10", "imagenette": "imagenet", "imagenette-small": "imagenet", "digits": "imagenet"}


@dataclass(frozen=True)
class Declaration:
    """A row of the page: where it stands, and the values that it declares, each with the preset it is for, if one."""

    section: str
    values: tuple[tuple[Any, str | None], ...]

    def allows(self, value: Any, preset: str) -> bool:
        return any(allowed == value and of in (None, preset) for allowed, of in self.values)


def declarations(page: str) -> Declared:
    """The page's rows by key."""
    found: Declared = {}
    section = ""
    for line in page.splitlines():
        if line.startswith("#"):
            section = line.lstrip("# ")
        if row := re.match(r"\| `([^`]+)` \|", line):
            ours = line.split(" | ")[2]
            found.setdefault(row[1], []).append(Declaration(section, tuple(declared_values(ours))))
    return found


def declared_values(cell: str) -> Iterator[tuple[Any, str | None]]:
    """The values in code at the beginning of a cell: "`1` (cifar10), `2` (imagenet): …"."""
    position = 0
    while match := re.compile(r"(?:, )?`([^`]+)`(?: \(([a-z0-9-]+)\))?").match(cell, position):
        yield yaml.safe_load(match[1]), match[2]
        position = match.end()


def flat(tree: Any, key: str = "") -> Tree:
    """The tree's leaves by dotted key; an empty mapping is a leaf, but for a run's `training`."""
    if not isinstance(tree, dict) or not tree:
        return {} if re.fullmatch(r"runs\.[^.]+\.training", key) else {key: tree}
    return {
        leaf: value for name, part in tree.items() for leaf, value in flat(part, f"{key}.{name}".strip(".")).items()
    }


def undeclared(preset: str, tree: Tree, facts: Tree, declared: Declared) -> list[str]:
    """Keys in which a preset's tree is not as `facts` say, or they say nothing, and the page does not declare it."""
    ours, theirs = flat(tree), flat(facts)
    return [
        f"{key}: {ours.get(key, ABSENT)!r}, not {theirs.get(key, ABSENT)!r}"
        for key in sorted(ours.keys() | theirs.keys())
        if not NEUTRAL.fullmatch(key)
        and not (key in ours and key in theirs and ours[key] == theirs[key])
        and not any(row.allows(ours.get(key, ABSENT), preset) for row in declared.get(key, []))
    ]


def undeclared_of_base(name: str, presets: dict[str, Tree], declared: Declared) -> list[str]:
    """Keys in which a preset of other data differs from its base without a row in its own section of the page.

    The row must give the value too, but for digits.
    """
    ours, base = flat(presets[name]), flat(presets[BASES[name]])
    own = {key: [row for row in rows if row.section == name] for key, rows in declared.items()}
    return [
        key
        for key, value in ours.items()
        if not NEUTRAL.fullmatch(key)
        and not key.startswith(("runs.", "ensembles.", "data.source"))
        and (key not in base or base[key] != value)
        and not any(name == "digits" or row.allows(value, name) for row in own.get(key, []))
    ]


def exists(key: str) -> bool:
    """Whether a dotted key stands in the schema; the names in `runs` and `ensembles` are free."""
    return _exists(key.split("."), Params)


def _exists(parts: list[str], annotation: Any) -> bool:
    if not parts:
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(parts[0])
        if annotation.__name__ == "Run" and parts[0] == "training":
            return _exists(parts[1:], Training)
        return field is not None and _exists(parts[1:], field.annotation)
    if get_origin(annotation) is dict:
        return _exists(parts[1:], get_args(annotation)[1])
    return any(_exists(parts, part) for part in get_args(annotation))


@pytest.fixture(scope="module")
def declared() -> Declared:
    return declarations(PAGE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def presets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tree]:
    folder = tmp_path_factory.mktemp("presets")
    trees = {}
    for name in {*PAPER, *BASES}:
        output = folder / f"{name}.yaml"
        compose_and_dump(output, str(ROOT / "conf"), None, "config", "", [f"experiment={name}"])
        trees[name] = yaml.safe_load(output.read_text(encoding="utf-8"))
    return trees


def test_every_declared_key_exists(declared: Declared) -> None:
    assert len(declared) > 50
    assert [key for key in declared if not exists(key)] == []


@pytest.mark.parametrize(
    ("key", "known"),
    [
        ("training.schedule.milestones", True),
        ("training.schedule.patience", True),
        ("evaluation.protocols.multi_scale.average", True),
        ("ensembles.paper", True),
        ("runs.vgg16-s0", True),
        ("runs.vgg16-s0.training.optimizer.learning_rate", True),
        ("runs.vgg16-s0.training.optimizer.rate", False),
        ("runs.vgg16-s0.optimizer", False),
        ("training.nesterov", False),
        ("training.batch_size.images", False),
        ("ensembles.paper.first", False),
    ],
)
def test_existence_of_keys(key: str, known: bool) -> None:
    assert exists(key) is known


@pytest.mark.parametrize("name", PAPER)
def test_preset_differs_from_the_paper_only_as_declared(
    name: str, declared: Declared, presets: dict[str, Tree]
) -> None:
    assert undeclared(name, presets[name], PAPER[name], declared) == []


@pytest.mark.parametrize("name", RUNS)
def test_preset_has_the_runs_of_the_papers_tables(name: str, presets: dict[str, Tree]) -> None:
    networks = [split_run(run)[0] for run in presets[name]["runs"]]
    assert {network: networks.count(network) for network in networks} == RUNS[name]


def test_ensemble_is_of_six_models_two_of_152_layers(presets: dict[str, Tree]) -> None:
    members = presets["imagenet"]["ensembles"]["paper"]
    assert len(set(members)) == 6
    assert sum(split_run(member)[0] == "resnet152" for member in members) == 2


@pytest.mark.parametrize("name", BASES)
def test_preset_of_other_data_differs_from_its_base_only_as_declared(
    name: str, declared: Declared, presets: dict[str, Tree]
) -> None:
    assert undeclared_of_base(name, presets, declared) == []
    assert presets[name]["report"]["comparable"] is False
    assert presets[name]["report"]["note"]


def test_cifar10_jpeg_is_cifar10_in_all_but_its_images(presets: dict[str, Tree]) -> None:
    ours, base = flat(presets["cifar10-jpeg"]), flat(presets["cifar10"])
    differing = {key for key in ours.keys() | base.keys() if ours.get(key) != base.get(key)}
    assert differing <= {"experiment", "data.url", *(key for key in ours if key.startswith("report."))}
    assert "JPEG" in presets["cifar10-jpeg"]["report"]["note"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.optimizer.nesterov", True),
        ("training.optimizer.weight_decay", 0.0005),
        ("training.schedule.patience", 6),
        ("training.bn_recompute_images", 12800),  # declared, but for the other preset
        ("training.options", {"stride_in": "conv3x3"}),
        ("training.precision", "bf16"),
        ("augmentation.scale", [256, 512]),
        ("evaluation.protocols.multi_scale.shorter_sides", [224, 256]),
        ("runs.resnet50-s0.training", {"optimizer": {"weight_decay": 0.0005}}),
        ("runs.vgg16-s0.training", {"optimizer": {"learning_rate": 0.02, "weight_decay": 0.0005}}),
    ],
)
def test_planted_deviation_is_found(key: str, value: Any, declared: Declared, presets: dict[str, Tree]) -> None:
    tree = copy.deepcopy(presets["imagenet"])
    *sections, last = key.split(".")
    node = tree
    for section in sections:
        node = node[section]
    node[last] = value
    found = undeclared("imagenet", tree, PAPER["imagenet"], declared)
    assert found
    assert all(line.startswith(key) for line in found)


@pytest.mark.parametrize("name", BASES)
def test_planted_deviation_from_a_base_is_found(name: str, declared: Declared, presets: dict[str, Tree]) -> None:
    tree = copy.deepcopy(presets[name])
    tree["training"]["optimizer"]["weight_decay"] = 0.0005
    assert undeclared_of_base(name, {**presets, name: tree}, declared) == ["training.optimizer.weight_decay"]


def test_missing_protocol_is_found(declared: Declared, presets: dict[str, Tree]) -> None:
    tree = copy.deepcopy(presets["imagenet"])
    del tree["evaluation"]["protocols"]["ten_crop"]
    found = undeclared("imagenet", tree, PAPER["imagenet"], declared)
    assert found == [
        "evaluation.protocols.ten_crop.crop: 'absent', not 224",
        "evaluation.protocols.ten_crop.shorter_side: 'absent', not 256",
    ]


def test_removed_row_is_found(presets: dict[str, Tree]) -> None:
    page = "\n".join(
        line for line in PAGE.read_text(encoding="utf-8").splitlines() if not line.startswith("| `training.precision`")
    )
    found = undeclared("imagenet", presets["imagenet"], PAPER["imagenet"], declarations(page))
    assert found == ["training.precision: 'auto', not 'fp32'"]
