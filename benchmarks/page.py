"""The table of docs/performance.md, from results/benchmarks.json.

python -m benchmarks.page
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.record import markdown
from pipeline.storage import read_json

RESULTS = Path("results") / "benchmarks.json"
PAGE = Path("docs") / "performance.md"
BEGIN, END = "<!-- from results/benchmarks.json: begin -->\n", "<!-- end -->\n"


def main() -> None:
    """Write the page anew."""
    refresh(PAGE, read_json(RESULTS))
    print(f"{PAGE} has the figures of {RESULTS}")


def refresh(page: Path, results: dict[str, Any]) -> None:
    """Put the figures of `results` between the page's markers; ValueError for a page without them."""
    replace_between(page, BEGIN, END, section(results))


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
        f" Commit {str(results['git_commit'])[:10]}, {results['measured'][:10]}.",
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


if __name__ == "__main__":
    main()
