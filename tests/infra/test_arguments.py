"""Numbers on command lines: refused where nothing could come of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from infra import cluster, job, reproduce, submit


@pytest.mark.parametrize(
    ("parse", "words"),
    [
        (submit._parse, ["-j", "0"]),
        (submit._parse, ["-j", "two"]),
        (reproduce._parse, ["-j", "-1"]),
        (lambda words: job.parser().parse_args(words), ["-j", "0"]),
        (cluster._parse, ["up", "--nodes", "0"]),
        (cluster._parse, ["up", "--cpus", "-1"]),
    ],
)
def test_less_than_one_is_refused(
    parse: Callable[[list[str]], object], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(words)
    assert ended.value.code == 2
    assert f"{words[-1]} is no whole number from 1 on" in capsys.readouterr().err


def test_others_are_taken() -> None:
    assert submit._parse(["-j", "3"]).jobs == 3
    assert cluster._parse(["up", "--nodes", "1"]).nodes == 1
    assert cluster._parse(["up"]).nodes is None
