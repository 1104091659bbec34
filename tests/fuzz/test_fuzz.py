"""The fuzz itself, in short and for long."""

from pathlib import Path

import pytest

from fuzz.run import Plan, run

# The largest schemas, but one of each kind: their edges are tried by the long run.
_BRIEF = ("run", "run_dojo_mini", "estimate", "createKeyFor", "createKey", "getUsage", "listKeys", "listAccounts")


def _well(folder: Path, plan: Plan) -> None:
    report = run(folder, plan)
    assert not report.faults, "\n".join([report.output, *report.lines()])


def test_every_operation_answers_as_documented(tmp_path: Path) -> None:
    _well(tmp_path, Plan(seed=1, examples=1, brief=_BRIEF))


@pytest.mark.long
def test_every_operation_answers_as_documented_for_long(tmp_path: Path) -> None:
    _well(tmp_path, Plan(seed=2, examples=50, seconds=180))
