"""Table of networks: layers, parameters, multiply-adds, output shape (`python -m pipeline.models all`)."""

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from pipeline.models import zoo
from pipeline.models.complexity import Complexity, complexity_of

WIDTH = 160
"""Characters that a row may take, however narrow the terminal or the pipe: nothing is wrapped nor cut."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; the exit status is 1 with a message on standard error if a name or a size is wrong."""
    options = parser().parse_args(arguments)
    names = zoo.names() if "all" in options.names else list(dict.fromkeys(options.names))
    try:
        measured = {name: measure(name, options.size, options.num_classes) for name in names}
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    tables = [summary(measured)]
    if options.layers:
        tables += [by_layer(name, complexity) for name, (_, complexity) in measured.items()]
    console = Console(width=WIDTH, highlight=False)
    for table in tables:
        console.print(table)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(prog="python -m pipeline.models", description=__doc__)
    result.add_argument("names", nargs="+", metavar="name", help="networks, or all")
    result.add_argument("--layers", action="store_true", help="also print each network layer by layer")
    result.add_argument(
        "--size", type=int, help="pixels a side of the image (default: 224, or 32 for CIFAR's networks)"
    )
    result.add_argument("--num-classes", type=int, help="classes (default: 1000, or 10 for CIFAR's networks)")
    return result


def measure(name: str, size: int | None, num_classes: int | None) -> tuple[int, Complexity]:
    """Image size and complexity of a network, by default at the size and with the classes of its own data."""
    entry = zoo.find(name)
    size = entry.image_size if size is None else size
    num_classes = entry.num_classes if num_classes is None else num_classes
    return size, complexity_of(name, num_classes, size)


def new_table(title: str | None, text: Sequence[str], numbers: Sequence[str]) -> Table:
    """A table with columns of text, then of numbers."""
    table = Table(title=title, title_justify="left")
    for column in text:
        table.add_column(column, no_wrap=True)
    for column in numbers:
        table.add_column(column, no_wrap=True, justify="right")
    return table


def summary(measured: dict[str, tuple[int, Complexity]]) -> Table:
    """One row a network."""
    table = new_table(None, ["network"], ["image", "layers", "parameters", "multiply-adds", "output"])
    for name, (size, complexity) in measured.items():
        numbers = (str(complexity.layers), f"{complexity.parameters:,}", f"{complexity.multiply_adds:,}")
        table.add_row(name, f"{size}x{size}", *numbers, shape(complexity.output_shape))
    return table


def by_layer(name: str, complexity: Complexity) -> Table:
    """One row a convolution or fully connected layer."""
    table = new_table(name, ["layer", "kind"], ["output", "parameters", "multiply-adds"])
    for layer in complexity.by_layer:
        numbers = (f"{layer.parameters:,}", f"{layer.multiply_adds:,}")
        table.add_row(layer.name, layer.kind, shape(layer.output_shape), *numbers)
    return table


def shape(sizes: tuple[int, ...]) -> str:
    """64x56x56 for (64, 56, 56)."""
    return "x".join(str(size) for size in sizes)


if __name__ == "__main__":
    sys.exit(main())
