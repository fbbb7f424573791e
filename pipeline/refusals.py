"""Why parameters are refused, in words: the key, its value, what is allowed, and the key that was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable, Iterator
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

# YAML 1.1 wants a point in a number with an exponent.
EXPONENT_WITHOUT_POINT = re.compile(r"[+-]?\d+[eE][+-]?\d+$")


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key may stand only once: PyYAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                mark = key.start_mark
                raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' stands there twice", mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> Any:
    """The tree in a YAML text; yaml.YAMLError with line and column where it is broken or a key is repeated."""
    return yaml.load(text, _UniqueKeys)


def explain(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """A line for each thing that `root` refuses; keys are written from `root` on: 'optimizer.learning_rate: …'."""
    lines = [_explain(problem, root) for problem in error.errors()]
    return [line for lines_of_one in lines for line in lines_of_one.split("\n")]


def _explain(problem: Any, root: type[BaseModel]) -> str:
    keys, model = _walk(problem["loc"], root)
    key, kind = ".".join(keys), problem["type"]
    if kind == "extra_forbidden":
        return f"{key}: unknown key (value {problem['input']!r}); {_allowed(keys, model, root)}"
    if kind == "missing":
        return f"{key}: missing"
    if kind.startswith("union_tag"):
        return f"{key}.{_tag_problem(problem)}"
    if kind == "value_error":
        return ".".join([*keys, str(problem["ctx"]["error"])])
    return f"{key or 'parameters'}: {problem['input']!r} is not allowed: {_reason(problem, root)}"


def _tag_problem(problem: Any) -> str:
    """What is wrong with the `kind` by which sections are told apart."""
    name = problem["ctx"]["discriminator"].strip("'")
    if problem["type"] == "union_tag_not_found":
        return f"{name}: missing"
    return f"{name}: {problem['ctx']['tag']!r} is not allowed: use one of {problem['ctx']['expected_tags']}"


def _reason(problem: Any, root: type[BaseModel]) -> str:
    value = problem["input"]
    if problem["type"] == "model_type":
        return f"Input should be a valid dictionary, with the keys {_keys_of(problem['ctx']['class_name'], root)}"
    if isinstance(value, str) and EXPONENT_WITHOUT_POINT.match(value):
        return f"{problem['msg']} (YAML reads it as text: write it with a point, such as 1.0e-4)"
    return str(problem["msg"])


def _keys_of(name: str, root: type[BaseModel]) -> str:
    """The keys of the section of this class, wherever it stands below `root`."""
    waiting = [root]
    for section in waiting:
        if section.__name__ == name:
            return ", ".join(section.model_fields)
        waiting += [each for field in section.model_fields.values() for each in _sections(field.annotation)]
    raise AssertionError(f"no section {name} below {root.__name__}")


def _allowed(keys: list[str], model: type[BaseModel], root: type[BaseModel]) -> str:
    here = list(model.model_fields)
    close = difflib.get_close_matches(keys[-1], here, n=1) or _elsewhere(keys, root)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return f"allowed here: {', '.join(here)}{hint}"


def _elsewhere(keys: list[str], root: type[BaseModel]) -> list[str]:
    """Whole keys of other sections that end much like this one, those of the sections nearest to it first."""
    paths = list(dict.fromkeys(_paths(root)))
    names = difflib.get_close_matches(keys[-1], {path[-1] for path in paths}, n=1, cutoff=0.75)
    found = [path for path in paths if path[-1] in names]
    return [".".join(path) for path in sorted(found, key=lambda path: -_shared(path, keys))]


def _shared(one: tuple[str, ...], other: list[str]) -> int:
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _paths(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        yield (name,)
        if not _is_mapping(field.annotation):  # its keys are names that the user gives
            for section in _sections(field.annotation):
                yield from ((name, *rest) for rest in _paths(section))


def _walk(location: tuple[str | int, ...], root: type[BaseModel]) -> tuple[list[str], type[BaseModel]]:
    """The key as the user writes it, without the tags of unions, and the section in which its last part stands."""
    keys: list[str] = []
    sections, model = [root], root
    for part in map(str, location):
        tagged = [section for section in sections if _kind(section) == part]
        if tagged and len(sections) > 1:
            sections = tagged
            continue
        model = sections[0] if sections else model
        field = model.model_fields.get(part)
        # A name in a mapping such as `runs` leads to the section that each of its values is.
        sections = _sections(field.annotation) if field else sections
        keys.append(part)
    return keys, model


def _kind(section: type[BaseModel]) -> str | None:
    """The value of a section's `kind` where it is fixed, by which a union of sections is told apart."""
    field = section.model_fields.get("kind")
    values = get_args(field.annotation) if field else ()
    return values[0] if len(values) == 1 else None


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections(part)]


def _is_mapping(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is dict
