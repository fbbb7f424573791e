"""README.md and docs/RESULTS.md: their figures are the committed results', their commands and links are there."""

from __future__ import annotations

import ast
import csv
import importlib.util
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.cli.parser import get_main_parser

from infra.job import parser as job_parser
from pipeline.config import check_networks, load_params
from pipeline.report import names
from tests import composing
from tools.results_page import (
    PAGE,
    README_RUNS,
    _chosen,
    _differing,
    evidence_lines,
    readme_with_figures,
    results_page,
    with_rows,
)

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = "results/digits"
PROGRAMS = ("make", "dvc", "python", "source")
PROTOCOLS = ("center_crop", "ten_crop", "multi_scale")


def git(*arguments: str) -> str | None:
    command = ["git", "-C", str(ROOT), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return ended.stdout if ended.returncode == 0 else None


def committed(path: str) -> str:
    """A file as git has it, so that a newcomer's own runs make no README false; as it lies there outside a clone."""
    kept = git("show", f":{path}")
    return (ROOT / path).read_text(encoding="utf-8") if kept is None else kept


def table(heading: str) -> list[list[str]]:
    """The cells of the README's table whose first line holds `heading`, without that line and the rule."""
    lines = README.splitlines()
    (start,) = (number for number, line in enumerate(lines) if line.startswith("|") and heading in line)
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """What the README tells people to type: lines of shell blocks, and commands within the text."""
    typed = [line for block in blocks("bash") for line in block.splitlines() if line.strip()]
    prose = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
    spoken = [text for text in re.findall(r"`([^`\n]+)`", prose) if text.split()[0] in PROGRAMS]
    return sorted({text for text in typed + spoken if "<" not in text})


def test_digits_table_is_the_committed_metrics() -> None:
    metrics = json.loads(committed(f"{RESULTS}/metrics.json"))
    shown = {
        row[0].removesuffix(", as chosen on held-out images"): row[1:4] for row in table("multi-scale | the paper")
    }
    rows = {names.label(run.partition("-s")[0]): errors for run, errors in metrics["runs"].items()}
    rows |= averaged(metrics)
    assert shown == {
        name: [f"{errors[protocol]['top1_error']:.2f}" for protocol in PROTOCOLS] for name, errors in rows.items()
    }
    assert f"on {rows['ResNet-56']['ten_crop']['n_images']} test images" in README


def averaged(metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{' and '.join(names.label(member.partition('-s')[0]) for member in found['members'])}, averaged": found
        for found in metrics["ensembles"].values()
    }


@pytest.mark.parametrize(
    "experiment", [name for name in README_RUNS if (ROOT / f"results/{name}/metrics.json").exists()]
)
def test_table_of_runs_is_the_committed_metrics(experiment: str) -> None:
    metrics = json.loads(committed(f"results/{experiment}/metrics.json"))
    runs = metrics["runs"]
    protocols = README_RUNS[experiment]
    shown = {row[0]: row[1 : 1 + len(protocols)] for row in table(f"run, `{experiment}`")}
    parted = {run: run.rpartition("-s") for run in runs}
    rows = {f"{names.label(network)}, seed {seed}": runs[run] for run, (network, _, seed) in parted.items()}
    rows |= {name: errors for name, errors in averaged(metrics).items() if name in shown}
    assert shown == {
        name: [f"{errors[protocol]['top1_error']:.2f}" for protocol in protocols] for name, errors in rows.items()
    }
    images = {f"{errors[protocol]['n_images']:,}" for errors in runs.values() for protocol in protocols}
    before = README.partition(f"| run, `{experiment}` |")[0].strip().rpartition("\n\n")[2]
    assert all(count in before for count in images)


def test_recipe_is_that_of_the_committed_runs() -> None:
    provenance = json.loads(committed(f"{RESULTS}/metrics.json"))["provenance"]
    recipes = [record["parameters"]["training"] for record in provenance.values()]
    assert {(recipe["iterations"], recipe["batch_size"]) for recipe in recipes} == {
        (recipes[0]["iterations"], recipes[0]["batch_size"])
    }
    assert f"{recipes[0]['iterations']:,} iterations of {recipes[0]['batch_size']} images" in README


def test_claims_stand_as_in_the_committed_report() -> None:
    rows = csv.DictReader(committed(f"{RESULTS}/tables/claims.csv").splitlines())
    standings = {row["statement"]: row["claim_standing"] for row in rows}
    assert dict(table("the paper's claim")) == standings


def published() -> dict[tuple[str, str], dict[str, Any]]:
    tables = yaml.safe_load((ROOT / "pipeline/report/published.yaml").read_text(encoding="utf-8"))
    return {
        (name, row.get("network", row["label"])): row
        for name, found in tables.items()
        if name.startswith("table")
        for row in found["rows"]
    }


@pytest.mark.parametrize(
    ("line", "figures"),
    [
        ("CIFAR-10 (Table 6)", [("table6", "resnet20"), ("table6", "resnet56"), ("table6", "resnet110")]),
        ("(Table 2)", [("table2", "plain34"), ("table2", "resnet34a")]),
        ("(Table 3)", [("table3", "resnet50"), ("table3", "resnet101"), ("table3", "resnet152")]),
        ("(Table 4)", [("table4", "resnet152")]),
        ("(Table 5)", [("table5", "ResNet (ILSVRC'15)")]),
    ],
)
def test_the_papers_figures_are_the_published_ones(line: str, figures: list[tuple[str, str]]) -> None:
    (cell,) = (row[1] for row in table("| the paper | ours |") if line in row[0])
    key = "top5" if "top-5" in next(row[0] for row in table("| the paper | ours |") if line in row[0]) else "top1"
    rows = [published()[figure] for figure in figures]
    texts = [f"{row[key]:.2f}" + (f" ({row['mean']:.2f} ± {row['std']:.2f})" if "mean" in row else "") for row in rows]
    assert cell == " / ".join(texts)


def test_the_papers_cifar_figures_beside_ours() -> None:
    shown = {row[0]: row[4] for row in table("multi-scale | the paper")}
    for network in ("resnet20", "resnet56"):
        assert shown[names.label(network)] == f"{published()['table6', network]['top1']:.2f}"


def test_not_run_is_said_only_of_what_has_no_results() -> None:
    paths = (git("ls-files", "results") or f"{RESULTS}/metrics.json").split()
    run = {path.split("/")[1] for path in paths if path.count("/") > 1}
    assert run == {"cifar10", "cifar10-jpeg", "digits", "imagenette-small"}, "README.md says that nothing else was run"


@pytest.mark.parametrize("command", commands())
def test_command_is_there(command: str, tmp_path: Path) -> None:
    program, *arguments = shlex.split(command)
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert {word for word in arguments if "=" not in word} <= set(targets)
    elif program == "python":
        assert arguments[0] == "-m"
        assert importlib.util.find_spec(arguments[1]) is not None
    elif program == "source":
        assert arguments in ([".venv/bin/activate"], [".cluster/env"])
    elif program == "ray":
        assert arguments[:2] == ["job", "submit"]
        entry = arguments[arguments.index("--") + 1 :]
        assert entry[:2] == ["python", "-m"]
        job_parser().parse_args(entry[3:])
    else:
        assert program == "dvc"
        choices = get_main_parser().parse_args(arguments)
        compose(getattr(choices, "set_param", None) or [], tmp_path)


def compose(overrides: list[str], folder: Path) -> None:
    """Compose the parameters with a command's choices; an error when they are refused."""
    check_networks(load_params(composing.compose(folder / "params.yaml", overrides)))


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", README)
    assert [link for link in links if link.startswith("http") and not link.startswith("https://")] == []
    inside = [link.partition("#")[0] for link in links if not link.startswith("http")]
    assert "results/digits/figures/figure6.svg" in inside
    assert [link for link in inside if not (ROOT / link).exists()] == []
    if (kept := git("ls-files", *inside)) is not None:
        assert set(inside) == set(kept.split())


PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_links_of_pages_lead_to_files_and_headings(page: str) -> None:
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}, link


def test_tree_names_what_is_there() -> None:
    (tree,) = (block for block in blocks("text"))
    tops = [line.split()[0] for line in tree.splitlines() if not line.startswith(" ")]
    within = re.findall(r"^  ([a-z]+/|[a-z]+\.py(?:, [a-z]+\.py)*)", tree, flags=re.MULTILINE)
    packages = [f"pipeline/{name}" for group in within for name in group.split(", ")]
    assert [path for path in tops + packages if not (ROOT / path).exists()] == []
    there = {path.name for path in (ROOT / "pipeline").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert there == {name.rstrip("/") for name in within if name.endswith("/")}


def test_python_is_sound_and_names_a_registered_model() -> None:
    (block,) = blocks("python")
    ast.parse(block)
    models = re.findall(r'"models:/([a-z0-9-]+)@best"', block)
    assert models
    registered = json.loads(committed(f"{RESULTS}/registry.json"))
    assert set(models) <= set(registered)


def test_results_page_is_that_of_the_committed_metrics() -> None:
    paths = (git("ls-files", "results/*/metrics.json") or f"{RESULTS}/metrics.json").split()
    found = {path.split("/")[1]: json.loads(committed(path)) for path in paths}
    assert (ROOT / PAGE).read_text(encoding="utf-8") == results_page(found)


def test_readme_has_the_figures_that_the_tool_writes() -> None:
    found = {
        name: json.loads(committed(f"results/{name}/metrics.json"))
        for name in ("digits", *README_RUNS)
        if (ROOT / f"results/{name}/metrics.json").exists()
    }
    assert readme_with_figures(README, found, committed(f"{RESULTS}/tables/claims.csv")) == README
    found["cifar10"]["ensembles"]["plain20_resnet20"]["single_view"]["top1_error"] = 1.25
    assert "| plain-20 and ResNet-20, averaged | 1.25 | not in the paper |" in readme_with_figures(README, found, "")


def test_results_page_says_what_was_chosen_beside_the_preset(tmp_path: Path) -> None:
    compose(["experiment=cifar10-jpeg"], tmp_path)
    preset = load_params(tmp_path / "params.yaml")
    tree = {"data": preset.data, "augmentation": preset.augmentation, "training": preset.training_of("resnet20-s0")}
    parameters = {name: section.model_dump(mode="json") for name, section in tree.items()}
    parameters["training"]["compile"] = False
    parameters["training"]["optimizer"]["learning_rate"] = 0.05
    parameters["data"]["url"] = "/somewhere/else"
    parameters["training"]["warmup"] = {"learning_rate": 0.01, "until_training_error": 80.0}
    parameters["training"]["schedule"]["milestones"] = [16000, 24000]
    evaluation = preset.evaluation.model_dump(mode="json") | {"precision": "bf16"}
    hardware = {"processor": "P", "cores": 2, "memory_gib": 8.0, "gpus": []}
    record = {"git_commit": "a" * 40, "git_dirty": False, "seed": 0, "parameters": parameters, "precision": "bf16"}
    record |= {"workers": 1, "hardware": hardware, "wall_seconds": 9.0}
    begun = {"from_iteration": 0, "git_commit": "b" * 40, "git_dirty": True, "workers": 1, "hardware": hardware}
    record["sittings"] = [begun, {**record, "from_iteration": 5000}]
    record["evaluation"] = {"wall_seconds": 1.0, "parameters": evaluation}
    errors = {"single_view": {"top1_error": 9.5, "top5_error": 0.5, "n_images": 10_000}}
    pair = {"pair": {"members": ["plain20-s0", "resnet20-s0"], **errors}}
    metrics = {"runs": {"resnet20-s0": errors}, "ensembles": pair, "provenance": {"resnet20-s0": record}}
    page = results_page({"cifar10-jpeg": {**metrics, "note": "Re-coded as JPEG."}})
    (command,) = re.findall(r"^`dvc (exp run -S experiment=\S+ .*)` composes `params.yaml`", page, re.MULTILINE)
    experiment, *options = get_main_parser().parse_args(shlex.split(command)).set_param
    compose([experiment, *options], tmp_path)
    composed = load_params(tmp_path / "params.yaml")
    assert composed.training_of("resnet20-s0").model_dump(mode="json") == parameters["training"]
    assert composed.evaluation.model_dump(mode="json") == evaluation
    assert composed.ensembles["pair"] == ["plain20-s0", "resnet20-s0"]
    assert len(options) == 6, options
    assert "`dvc repro --single-item ensemble@cifar10-jpeg report@cifar10-jpeg`" in page, "DVC would train the others"
    assert "`dvc repro --single-item ensemble@cifar10-jpeg`" in page
    assert "`dvc repro ensemble@cifar10-jpeg`" not in page
    assert "`dvc repro report@cifar10-jpeg`" not in page
    (line,) = [line for line in page.splitlines() if line.startswith("Of the preset's runs, not run: ")]
    assert set(line.removeprefix("Of the preset's runs, not run: ").rstrip(".").split(", ")) == set(preset.runs) - {
        "resnet20-s0"
    }
    assert (
        f"| from iteration 0: {'b' * 12} and changes; from iteration 5,000: {'a' * 12} | 0 | 64,000 | bf16 | 1 |"
        in page
    )
    assert "Re-coded as JPEG." in page, "what is to note of the data stands beside its figures"


def test_a_run_beside_the_preset_is_composed_with_its_recipe(tmp_path: Path) -> None:
    compose(["experiment=cifar10-jpeg"], tmp_path)
    preset = load_params(tmp_path / "params.yaml")
    tree = {"data": preset.data, "augmentation": preset.augmentation, "training": preset.training}
    parameters = {name: section.model_dump(mode="json") for name, section in tree.items()}
    parameters["training"] |= {"iterations": 300, "compile": False}
    parameters["training"]["optimizer"]["learning_rate"] = 0.05
    parameters["training"]["schedule"]["milestones"] = [100, 200]
    parameters["augmentation"]["mirror"] = False
    record = {"parameters": parameters, "evaluation": {"parameters": preset.evaluation.model_dump(mode="json")}}
    compose(["experiment=cifar10-jpeg", *_chosen(preset, "resnet20-s7", record)], tmp_path)
    composed = load_params(tmp_path / "params.yaml")
    assert composed.training_of("resnet20-s7").model_dump(mode="json") == parameters["training"]
    assert composed.augmentation.model_dump(mode="json") == parameters["augmentation"]
    assert composed.training_of("resnet20-s0").iterations == preset.training.iterations


@pytest.mark.parametrize(
    ("declared", "recorded", "said"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, ["a.c=3"]),
        ({"a": None}, {"a": {"b": 0.1, "c": [1, 2]}}, ["a={b:0.1,c:[1,2]}"]),
        ({"a": {"b": 1}}, {"a": None}, ["a=null"]),
        ({"a": {}}, {"a": {"shortcut": "B"}}, ["+a={shortcut:B}"]),
        ({}, {"a": True}, ["+a=true"]),
        ({"a": {"b": 1}, "new": 1}, {"a": {"b": 1}}, []),
    ],
)
def test_other_values_than_the_presets_as_overrides(
    declared: dict[str, Any], recorded: dict[str, Any], said: list[str]
) -> None:
    assert _differing(declared, recorded) == said


def test_a_table_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"0 tables begin with `\| run, `cifar10-jpeg` \|`"):
        with_rows("no table", "| run, `cifar10-jpeg` |", [["ResNet-20", "9.5"]])


def test_evidence_is_named_where_it_is_kept(tmp_path: Path) -> None:
    assert evidence_lines("cifar10-jpeg", ["a.b=[1,2]"], tmp_path) == []
    (tmp_path / "results/cifar10-jpeg/evidence/plain20-s0").mkdir(parents=True)
    (line,) = evidence_lines("cifar10-jpeg", ["a.b=[1,2]"], tmp_path)
    assert "(../results/cifar10-jpeg/evidence)" in line
    assert "`python -m tools.evidence restore cifar10-jpeg`" in line
    assert "`dvc exp run -S experiment=cifar10-jpeg -S 'a.b=[1,2]' prepare@cifar10-jpeg`" in line
    assert "`dvc repro --single-item ensemble@cifar10-jpeg report@cifar10-jpeg`" in line
