"""The page and its Markdown form, from everything the report says."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from pipeline.report.answer import ClaimLine
from pipeline.report.mistakes import Mistake
from pipeline.report.plots import Plot, to_inline_svgs
from pipeline.report.provenance_cards import Card
from pipeline.report.tables import Table, escape_markdown, to_markdown
from pipeline.schema import Report

TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Content:
    """What the report says, in the order in which it says it."""

    experiment: str
    report: Report
    sentences: list[str]
    claims: list[ClaimLine]
    results: list[Table]
    paper: list[Table]
    rule: str
    """When a figure counts as reproduced, in words."""
    plots: list[Plot]
    mistakes: list[Mistake]
    mistakes_of: str
    """The run and protocol of the mistakes, in words."""
    cards: list[Card]
    provenance: Table
    local_links: bool
    """Runs link to MLflow's pages on this machine."""
    ensemble_command: str | None
    selection: str
    """What the test images selected, in words."""
    problems: list[str]


def render_html(content: Content) -> str:
    """One self-contained page: inline style and SVG, no request to anywhere."""
    figures = [(plot, [Markup(svg) for svg in to_inline_svgs(plot)]) for plot in content.plots]
    return _environment().get_template("report.html.j2").render(content=content, figures=figures)


def render_markdown(content: Content) -> str:
    """The same in Markdown, its figures linked from figures/."""
    return _environment().get_template("report.md.j2").render(content=content)


def render_markdown_table(table: Table, report: Report) -> str:
    """One table in Markdown with its title, its caption, its data and what is to note of them."""
    return _environment().get_template("table.md.j2").render(table=table, report=report)


def _code(text: str) -> Markup:
    """Escaped text with its commands, between backticks, set as code."""
    if text.count("`") % 2:
        return escape(text)
    parts = [
        Markup("<code>{}</code>").format(part) if i % 2 else escape(part) for i, part in enumerate(text.split("`"))
    ]
    return Markup().join(parts)


def _code_in_markdown(text: str) -> str:
    """The same for Markdown."""
    if text.count("`") % 2:
        return escape_markdown(text)
    return "`".join(part if i % 2 else escape_markdown(part, strip=False) for i, part in enumerate(text.split("`")))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(enabled_extensions=("html.j2",), default=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"md": escape_markdown, "md_table": to_markdown, "md_code": _code_in_markdown, "code": _code}
    return environment
