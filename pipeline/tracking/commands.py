"""Commands about what is registered: promote, rollback, history, check, export."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from pipeline import paths
from pipeline.storage import read_json
from pipeline.tracking import checking, export, promotion
from pipeline.tracking.aliases import BEST, Promotion
from pipeline.tracking.store import answered, initialise


def main(arguments: Sequence[str]) -> int:
    """Run one command: 0, 1 where `check` found something, 2 with a message where it is refused."""
    options = _parser().parse_args(arguments)
    try:
        initialise()
        with answered():
            return COMMANDS[options.command](options)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"register {options.command}: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m stages.register", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    promote = commands.add_parser("promote", help="put an alias on a version and keep it there")
    promote.add_argument("model", help="a registered model, such as digits-resnet56")
    promote.add_argument("version")
    promote.add_argument("--force", action="store_true", help="even if not evaluated, or worse than by chance")
    rollback = commands.add_parser("rollback", help="undo an alias's last promotion")
    rollback.add_argument("model")
    for command in (promote, rollback):
        command.add_argument("--why", required=True, help="the reason, for the record")
        command.add_argument("--alias", default=BEST, help=f"which alias ({BEST})")
        command.add_argument("--who", help="for the record; the user by default")
    commands.add_parser("history", help="a model's promotions").add_argument("model")
    check = commands.add_parser("check", help="say what is broken, exit 1 if anything is")
    check.add_argument("experiment", nargs="?", default="", help="one experiment's models alone")
    _add_export(commands.add_parser("export", help="write a model as one file that needs none of this code"))
    return parser


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="models:/digits-resnet56@best, for one")
    parser.add_argument("file", type=Path)
    parser.add_argument("--format", choices=sorted(export.FORMATS), help="from the file's suffix by default")
    parser.add_argument("--side", type=int, help="height and width of the images; the protocol's crop by default")


def _promote(options: argparse.Namespace) -> int:
    made = promotion.promote(
        options.model, options.version, options.why, alias=options.alias, who=options.who, force=options.force
    )
    print(_line(options.model, made))
    return 0


def _rollback(options: argparse.Namespace) -> int:
    print(_line(options.model, promotion.rollback(options.model, options.why, alias=options.alias, who=options.who)))
    return 0


def _history(options: argparse.Namespace) -> int:
    for made in promotion.history(options.model):
        print(_line(options.model, made))
    return 0


def _check(options: argparse.Namespace) -> int:
    names = checking.registered(options.experiment or "")
    problems = [line for name in names for line in checking.check(name)]
    problems += [line for record in _records(options.experiment, set(names.values())) for line in record]
    for line in problems:
        print(line)
    print(f"{len(names)} registered models, {len(problems)} problems", file=sys.stderr)
    return 1 if problems else 0


def _records(experiment: str, registered: Collection[str]) -> Iterator[list[str]]:
    """Problems with each experiment's registry.json, where the experiment has anything registered here."""
    results = paths.results_dir(experiment or "*")
    for path in sorted(results.parent.glob(f"{results.name}/{paths.registry_record('').name}")):
        if path.parent.name in registered:
            yield checking.check_record(read_json(path))


def _export(options: argparse.Namespace) -> int:
    difference = export.export(options.model, options.file, options.format, options.side)
    print(f"{options.file}: probabilities differ from the registered model's by at most {difference:.1e}")
    return 0


def _line(name: str, made: Promotion) -> str:
    forced = ", forced" if made.forced else ""
    move = f"{name}@{made.alias}: {made.previous or 'none'} -> {made.version}"
    line = f"{made.when}  {move}  {made.who}{forced}: {made.why}"
    return line + "".join(f"; undone {each['when']} by {each['who']}: {each['why']}" for each in made.undone)


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "promote": _promote,
    "rollback": _rollback,
    "history": _history,
    "check": _check,
    "export": _export,
}
NAMES = tuple(COMMANDS)
