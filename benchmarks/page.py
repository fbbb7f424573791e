"""The tables of docs/performance.md, from results/benchmarks*.json, one a machine, and results/precision.json.

python -m benchmarks.page
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import seeds
from benchmarks.record import markdown
from pipeline.storage import read_json

RESULTS = Path("results") / "benchmarks.json"
PRECISION = Path("results") / "precision.json"
PAGE = Path("docs") / "performance.md"
END = "<!-- end -->\n"
PRECISION_BEGIN, PRECISION_END = "<!-- from results/precision.json: begin -->\n", "<!-- end of precision -->\n"


def main() -> None:
    """Write the page anew."""
    for file in machines():
        refresh(PAGE, file)
    replace_between(PAGE, PRECISION_BEGIN, PRECISION_END, precision_section(read_json(PRECISION)))
    print(f"{PAGE} has the figures of {', '.join(map(str, [*machines(), PRECISION]))}")


def machines(folder: Path = RESULTS.parent) -> list[Path]:
    """The files of figures, one for each machine that was measured."""
    return sorted(folder.glob(f"{RESULTS.stem}*.json"))


def refresh(page: Path, file: Path) -> None:
    """Put the figures of `file` between its markers in the page; ValueError for a page without them."""
    replace_between(page, begin(file), END, section(read_json(file)))


def begin(file: Path) -> str:
    """The line of the page after which the figures of `file` stand."""
    return f"<!-- from {RESULTS.parent}/{file.name}: begin -->\n"


def replace_between(page: Path, begin: str, end: str, text: str) -> None:
    """Put `text` in the place of what stands between two lines of a page; ValueError for a page without them."""
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{page}: no place for the table: put the lines {begin.strip()} and {end.strip()} there")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def section(results: dict[str, Any]) -> str:
    """Where and when it was measured, and the table."""
    machine, versions = results["hardware"], results["versions"]
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {gpus};"
        f" {results['threads']} thread(s). torch {versions['torch']}, torchvision {versions['torchvision']}."
        f" Commit {str(results['git_commit'])[:10]}{' and changes' if results['git_dirty'] else ''},"
        f" {results['measured'][:10]}.",
        "",
    ]
    if results["shared_machine"]:
        load = ", ".join(map(str, results["load_average"]))
        lines += [
            f"**Taken while other work ran on the same machine** (load average {load}): both sides are slowed, and not"
            " always alike.",
            "",
        ]
    if results["quick"]:
        lines += ["**Taken with `--quick`**: one or two short rounds each.", ""]
    return "\n".join(lines) + "\n" + markdown(results["benchmarks"])


def precision_section(results: dict[str, Any]) -> str:
    """What trainings by several number formats ended with, where, and the verdict."""
    settings = results["settings"]
    ends = {way: list(found.values()) for way, found in results["ends"].items()}
    places: dict[str, set[int]] = {}
    for found in results["ends"].values():
        for seed, end in found.items():
            commit = str(end.get("git_commit") or "unknown")[:10]
            places.setdefault(f"{end.get('processor', 'processor unknown')}, commit {commit}", set()).add(int(seed))
    where = "; ".join(f"{place}: seed {', '.join(map(str, sorted(of)))}" for place, of in places.items())
    return (
        f"{settings['network']}, {settings['iterations']:,} iterations, {settings['images']:,} training and"
        f" {settings['test_images']:,} test images. {where}.\n\n"
        f"{seeds.markdown(ends)}\nVerdict: {seeds.verdict(ends)}.\n"
    )


if __name__ == "__main__":
    main()
