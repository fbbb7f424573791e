"""Compile pyproject.toml into requirements.txt: names, versions and markers alone, whatever index pip uses."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

PINS = Path("requirements.txt")
HEADER = "# Made by `make pins` from pyproject.toml (runtime and dev); not edited by hand.\n"
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix"}
MACOS = {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64", "os_name": "posix"}
COMPILE = ["--extra", "dev", "--strip-extras", "--no-header", "--no-annotate", "--quiet"]
NO_PLACES = ["--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host", "--no-emit-options"]


def main() -> None:
    """Keep the pins there are where pyproject.toml allows, or raise all (--upgrade) or some (--upgrade-package)."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--upgrade", action="store_true")
    parser.add_argument("--upgrade-package", action="append", default=[], metavar="NAME")
    arguments = parser.parse_args()
    options = ["--upgrade"] if arguments.upgrade else []
    options += [word for name in arguments.upgrade_package for word in ("--upgrade-package", name)]
    pins = compiled(options)
    requires = requirements_of(pins)
    linux_only = needed(requires, LINUX) - needed(requires, MACOS)
    lines = [pin_line(name, version, name in linux_only) for name, version in sorted(pins.items())]
    PINS.write_text(HEADER + "".join(lines), encoding="utf-8")


def pin_line(name: str, version: str, linux_only: bool) -> str:
    """One line of the file: 'triton==3.8.0 ; sys_platform == "linux"'."""
    marker = ' ; sys_platform == "linux"' if linux_only else ""
    return f"{name}=={version}{marker}\n"


def compiled(options: list[str]) -> dict[str, str]:
    """The version of each package that pip-compile settles on."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / PINS.name
        if PINS.exists():
            output.write_bytes(PINS.read_bytes())
        command = [sys.executable, "-m", "piptools", "compile", *COMPILE, *NO_PLACES, *options]
        subprocess.run([*command, "--output-file", str(output), "pyproject.toml"], check=True)
        return parse_pins(output.read_text(encoding="utf-8"))


def parse_pins(text: str) -> dict[str, str]:
    """Name and version of each requirement; that of one with a place ("x @ file:///…") comes from the wheel's name."""
    pins = {}
    for line in text.splitlines():
        words = line.partition("#")[0].strip()
        if not words or words.startswith("-"):
            continue
        requirement = Requirement(words)
        pins[canonicalize_name(requirement.name)] = _version(requirement)
    return pins


def _version(requirement: Requirement) -> str:
    if requirement.url:
        wheel = requirement.url.rpartition("/")[2].partition("#")[0].replace("%2B", "+")
        return str(parse_wheel_filename(wheel)[1])
    (specifier,) = requirement.specifier
    return specifier.version


def needed(requires: dict[str, list[str]], environment: dict[str, str]) -> set[str]:
    """The packages that the project needs under `environment`, by following what each one requires."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    queue = [Requirement(text) for text in [*project["dependencies"], *project["optional-dependencies"]["dev"]]]
    seen: set[tuple[str, str]] = set()
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            wanted = [Requirement(text) for text in requires.get(name, [])]
            queue += [r for r in wanted if r.marker is None or r.marker.evaluate({**environment, "extra": extra})]
    return {name for name, _ in seen} & set(requires)


def requirements_of(pins: dict[str, str]) -> dict[str, list[str]]:
    """What each pinned package itself requires, read from its metadata by pip."""
    lines = [f"{name}=={version}" for name, version in pins.items()]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet"]
        subprocess.run([*command, "--report", str(report), *lines], check=True)
        installs = json.loads(report.read_text(encoding="utf-8"))["install"]
    metadata = [item["metadata"] for item in installs]
    return {canonicalize_name(item["name"]): item.get("requires_dist", []) for item in metadata}


if __name__ == "__main__":
    main()
