"""The report as written: complete, self-contained, the same each time, and never a crash."""

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline import paths
from pipeline.report import page, write_report
from pipeline.schema import Report
from pipeline.storage import read_json, write_json
from tests.report.factory import BROKEN, DIGITS, DIGITS_ENSEMBLES, INPUTS, add_run

pytestmark = pytest.mark.slow

VOID = {"meta", "link", "br", "img"}


class Page(HTMLParser):
    """Collects what a page would fetch, and checks that its elements nest."""

    def __init__(self, text):
        super().__init__()
        self.fetched, self.tags, self.open, self.links = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        found = dict(attrs)
        self.fetched += [found[key] for key in ("src", "srcset", "poster", "data") if key in found]
        if tag == "a":
            self.links.append(found["href"])
        elif "href" in found or "xlink:href" in found:
            self.fetched.append(found.get("href") or found["xlink:href"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def write(root, report, runs=DIGITS, ensembles=DIGITS_ENSEMBLES, **options):
    problems = write_report("digits", report, runs, ensembles, root, **options)
    folder = root / paths.results_dir("digits")
    return problems, folder


@pytest.fixture
def folder(written):
    return written / paths.results_dir("digits")


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_everything_is_written(folder):
    written = set(files(folder))
    assert {"metrics.json", "report.html", "report.md", "curves.csv"} <= written
    for figure in ("figure6", "depth", "cost", "reliability", "confusion"):
        assert {f"figures/{figure}.svg", f"figures/{figure}.png"} <= written
    for table in ("runs", "ensembles", "errors", "claims", "verdicts", "provenance"):
        assert {f"tables/{table}.csv", f"tables/{table}.md"} <= written
    assert not [name for name in written if ".partial" in name]


def test_metrics_are_the_stages_own_with_their_provenance(folder, written):
    metrics = read_json(folder / "metrics.json")
    assert list(metrics) == ["runs", "ensembles", "provenance", "dataset", "note"]
    for run in DIGITS:
        assert metrics["runs"][run] == read_json(written / paths.run_metrics("digits", run))
        trained = read_json(written / paths.model_dir("digits", run) / "train.json")
        assert metrics["provenance"][run].items() >= trained["provenance"].items()
        assert metrics["provenance"][run]["mlflow_run_id"] == "0a1b2c"
        assert metrics["provenance"][run]["evaluation"]["data_digest"] == "ab" * 32
    assert metrics["ensembles"]["resnets"] == read_json(folder / "ensembles" / "resnets.json")


def test_what_is_not_shown_is_in_no_file(digits, digits_report):
    path = digits / paths.model_dir("digits", "plain56-s0") / "train.json"
    path.unlink()
    error = read_json(digits / paths.run_metrics("digits", "plain56-s0"))["ten_crop"]["top1_error"]
    problems, folder = write(digits, digits_report)
    assert any("plain56-s0" in problem for problem in problems)
    metrics = read_json(folder / "metrics.json")
    assert "plain56-s0" not in {*metrics["runs"], *metrics["provenance"]}
    for name in ("report.html", "report.md", "tables/runs.csv", "tables/errors.csv"):
        assert f"{error:.2f}" not in re.sub("<svg.*?</svg>", "", (folder / name).read_text(), flags=re.DOTALL)
    assert "plain56-s0: not shown" in (folder / "report.html").read_text()
    assert set(pd.read_csv(folder / "curves.csv")["run"]) == set(DIGITS) - {"plain56-s0"}


def test_curves_are_the_histories_in_long_form(folder, written):
    table = pd.read_csv(folder / "curves.csv")
    assert list(table.columns[:5]) == ["experiment", "run", "network", "seed", "iteration"]
    for run in DIGITS:
        saved = pd.read_csv(written / paths.model_dir("digits", run) / "history.csv")
        mine = table[table["run"] == run].reset_index(drop=True)
        for column in ("iteration", "training_error", "test_error", "learning_rate"):
            pd.testing.assert_series_equal(mine[column], saved[column])


def test_the_same_inputs_give_the_same_bytes(digits, digits_report, folder):
    _, again = write(digits, digits_report)
    assert files(again) == files(folder)


def test_a_table_read_by_itself_says_of_what_data_it_is(tmp_path):
    add_run(tmp_path, "x", "resnet20-s0", {"single_view": 0.9})
    report = Report(title="X", dataset="images re-coded as JPEG", comparable=False, note="About a point *worse*.")
    write_report("x", report, ["resnet20-s0"], {}, tmp_path)
    folder = tmp_path / paths.results_dir("x")
    for table in ("table6", "verdicts", "runs", "errors", "provenance"):
        text = (folder / "tables" / f"{table}.md").read_text()
        assert text.startswith("# ")
        assert text.count("Data: images re-coded as JPEG.") == text.count("> About a point \\*worse\\*.") == 1
        rows = pd.read_csv(folder / "tables" / f"{table}.csv", keep_default_na=False)
        assert set(rows["data"]) == {"images re-coded as JPEG"}
    metrics = read_json(folder / "metrics.json")
    assert (metrics["dataset"], metrics["note"]) == (report.dataset, report.note)
    for form in ("report.html", "report.md"):
        text = (folder / form).read_text()
        assert "ours are not compared with them" in text
        assert "A figure is reproduced when" not in text


def test_a_training_in_several_sittings_says_by_what_each_was(digits, digits_report):
    path = digits / paths.model_dir("digits", "plain20-s0") / "train.json"
    record = read_json(path)
    first = {"from_iteration": 0, "started": "2026-01-02T03:04:05+00:00", "git_commit": "a" * 40, "git_dirty": False}
    first |= {"torch": "2.0", "hardware": {"processor": "P", "cores": 8}, "workers": 8}
    second = first | {"from_iteration": 5000, "git_commit": "b" * 40, "git_dirty": True, "workers": 1}
    write_json(path, {**record, "provenance": {**record["provenance"], "sittings": [first, second]}})
    _, folder = write(digits, digits_report)
    (line,) = [line for line in (folder / "tables/provenance.md").read_text().splitlines() if "plain20-s0" in line]
    assert f"from iteration 0, 2026-01-02T03:04:05+00:00: commit {'a' * 12}, torch 2.0, workers: 8, P, 8 cores;" in line
    assert f"from iteration 5,000, {first['started']}: commit {'b' * 12} with uncommitted changes, torch 2.0" in line
    assert read_json(folder / "metrics.json")["provenance"]["plain20-s0"]["sittings"] == [first, second]


def test_a_run_without_usable_figures_has_no_curves_and_no_responses(digits, digits_report):
    path = digits / paths.predictions_dir("digits", "plain56-s0") / "evaluate.json"
    write_json(path, {**read_json(path), "weights_sha256": "0" * 64})
    problems, folder = write(digits, digits_report)
    assert any("of other weights" in problem for problem in problems)
    assert set(pd.read_csv(folder / "curves.csv")["run"]) == set(DIGITS) - {"plain56-s0"}
    assert "plain-56" not in (folder / "figures" / "figure6.svg").read_text()


def test_the_page_fetches_nothing(digits, digits_report):
    pixels = np.zeros((4, 4, 3), np.uint8)
    _, folder = write(digits, digits_report, image=lambda image_id: pixels)
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert page.fetched
    assert all(address.startswith(("data:", "#")) for address in page.fetched)
    assert "script" not in page.tags
    assert "@import" not in text
    assert "url(http" not in text
    assert page.tags.count("svg") == 6
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert 'name="viewport"' in text


def test_the_note_stands_beside_every_figure_and_table(folder, digits_report):
    html, markdown = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    note = digits_report.note.replace("'", "&#39;")
    for block in [*html.split("<table>")[:-1], *html.split('<div class="panels">')[:-1]]:
        assert note in block[-1200:]
    tables, figures = markdown.count("\n| :---") - 1, markdown.count("](figures/")
    assert markdown.count(f"> {digits_report.note}") >= tables + figures


def test_without_a_note_there_is_none(digits, digits_report):
    _, folder = write(digits, digits_report.model_copy(update={"note": None}), ["resnet20-s0"], {})
    assert 'class="note"' not in (folder / "report.html").read_text()
    assert "\n>" not in (folder / "report.md").read_text()


def test_text_from_outside_is_escaped(digits):
    hostile = "<script>alert(1)</script>"
    report = Report(title=hostile, dataset=f"{hostile} & co", comparable=False, note=hostile)
    _, folder = write(digits, report, ["resnet20-s0"], {}, run_link=lambda run_id: "javascript:alert(1)")
    page = Page((folder / "report.html").read_text())
    assert "script" not in page.tags
    assert page.links == []
    assert "<script" not in (folder / "report.md").read_text().replace("\\<script", "")


@pytest.mark.parametrize(("address", "local"), [("http://127.0.0.1:5000", True), ("https://mlflow.example", False)])
def test_runs_link_to_their_mlflow_page(digits, digits_report, address, local):
    _, folder = write(digits, digits_report, ["resnet20-s0"], {}, run_link=lambda run_id: f"{address}/#/runs/{run_id}")
    text = (folder / "report.html").read_text()
    assert Page(text).links == [f"{address}/#/runs/0a1b2c"]
    assert ("<code>make ui</code> shows" in text) == local


def test_a_training_that_mlflow_missed_links_to_the_run_that_evaluation_made(digits, digits_report):
    trained = digits / paths.model_dir("digits", "resnet20-s0") / "train.json"
    evaluated = digits / paths.predictions_dir("digits", "resnet20-s0") / "evaluate.json"
    write_json(trained, {**read_json(trained), "mlflow_run_id": None})
    write_json(evaluated, {**read_json(evaluated), "mlflow_run_id": "0d0e0f"})
    _, folder = write(digits, digits_report, ["resnet20-s0"], {}, run_link=lambda run_id: f"http://a/{run_id}")
    assert Page((folder / "report.html").read_text()).links == ["http://a/0d0e0f"]
    assert read_json(folder / "metrics.json")["provenance"]["resnet20-s0"]["mlflow_run_id"] == "0d0e0f"


def test_each_run_says_how_to_reproduce_it(folder):
    for name in ("report.html", "report.md"):
        text = (folder / name).read_text()
        assert all(f"dvc repro evaluate@digits-{run}" in text for run in DIGITS)


def test_markdown_links_to_figures_that_are_there(folder):
    text = (folder / "report.md").read_text()
    linked = [part.partition(")")[0] for part in text.split("](")[1:]]
    assert len(linked) == 5
    assert all((folder / link).is_file() for link in linked)
    assert "\n\n\n\n" not in text


def test_tables_of_an_earlier_report_do_not_stay(digits, digits_report):
    _, folder = write(digits, digits_report, ["resnet20-s0"], DIGITS_ENSEMBLES)
    assert (folder / "tables" / "ensembles.csv").exists()
    write(digits, digits_report, ["resnet20-s0"], {})
    assert not (folder / "tables" / "ensembles.csv").exists()
    assert (folder / "ensembles" / "resnets.json").exists()


def test_nothing_run_is_still_a_report(tmp_path, digits_report):
    problems, folder = write(tmp_path, digits_report)
    assert problems == []
    metrics = read_json(folder / "metrics.json")
    assert {key: metrics[key] for key in ("runs", "ensembles", "provenance")} == {
        "runs": {},
        "ensembles": {},
        "provenance": {},
    }
    Page((folder / "report.html").read_text())
    assert "0 of 4 runs have results" in (folder / "report.md").read_text()
    assert pd.read_csv(folder / "curves.csv").empty


@pytest.mark.parametrize(
    ("path", "content"), list(zip(INPUTS, itertools.cycle(BROKEN), strict=False)), ids=lambda value: str(value)[-24:]
)
def test_no_broken_input_is_a_crash(digits, digits_report, path, content):
    (digits / path).write_bytes(content)
    problems, folder = write(digits, digits_report, DIGITS_ENSEMBLES["resnets"])
    named = path.stem if path.suffix == ".npz" else str(path)
    assert any(named in problem for problem in problems)
    text = (folder / "report.md").read_text()
    assert all(problem.partition(": ")[0] in text.partition("Missing or broken")[2] for problem in problems)
    Page((folder / "report.html").read_text())


@pytest.mark.parametrize(
    ("text", "html", "markdown"),
    [
        ("a_b; run `dvc repro a_b`", "a_b; run <code>dvc repro a_b</code>", "a\\_b; run `dvc repro a_b`"),
        ("<i> `<b>`", "&lt;i&gt; <code>&lt;b&gt;</code>", "\\<i> `<b>`"),
        ("one ` <b>", "one ` &lt;b&gt;", "one \\` \\<b>"),
    ],
)
def test_commands_in_problems_are_code(text, html, markdown):
    filters = page._environment().filters
    assert filters["code"](text) == html
    assert filters["md_code"](text) == markdown


def test_unknown_class_names_are_numbers(digits, digits_report):
    for run in DIGITS:
        (digits / paths.model_dir("digits", run) / "model.json").write_text("{")
    problems, folder = write(digits, digits_report, ["plain20-s0", "resnet20-s0"], {})
    assert len(problems) == 2
    assert all("class names unknown" in problem for problem in problems)
    assert "class 3" in (folder / "report.html").read_text()


def test_comparable_data_answer_with_verdicts(tmp_path):
    add_run(tmp_path, "cifar10", "resnet20-s0", {"single_view": 0.9}, n_images=2000)
    report = Report(title="CIFAR-10", dataset="CIFAR-10", comparable=True, note=None)
    write_report("cifar10", report, ["resnet20-s0", "resnet56-s0"], {}, tmp_path)
    folder = tmp_path / paths.results_dir("cifar10")
    text = (folder / "report.md").read_text()
    assert "Of 6 figures that the paper publishes for its own networks here" in text
    assert "5 were not run" in text
    verdicts = pd.read_csv(folder / "tables" / "verdicts.csv")
    assert (verdicts["verdict"] == "not run").sum() == 5
    assert Path(folder / "tables" / "table6.csv").exists()
