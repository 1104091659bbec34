"""One run: the service is started, schemathesis let loose on it, and what came of that is put into a report.

A plan goes in, a report comes out; `Report.faults` is empty when all is well.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from fuzz.site import Site, open_site

_METHODS = ("get", "post", "put", "patch", "delete", "head")
_DOCUMENT = "/api/v1/openapi.json"
_TESTS = Path(__file__).parent.parent
# Not for us: a wrong method is `not_found` here, with 404 (our own `one_envelope` checks that); a second identity is
# tried by `strangers_find_nothing`.
_WITHOUT = ("unsupported_method", "object_level_authorization")
_CONFIG = """
seed = {seed}
continue-on-failure = true
request-timeout = 30
max-stream-events = 5
workers = 1  # more of them trip over each other in the parser of Python 3.11, and gain little
hooks = "fuzz.hooks"
{max_time}

[auth.openapi.key]
bearer = "{key}"

[generation]
max-examples = {examples}
database = "none"

[cache]
enabled = false

[checks]
{without}

[checks.positive_data_acceptance]
expected-statuses = ["2xx", "304", "404", "410", "416"]

[checks.negative_data_rejection]
expected-statuses = ["400", "401", "404", "410", "416"]

[phases.stateful]
max-steps = 8

[[operations]]
include-operation-id = "jobEvents"
request-timeout = 2
"""
_FEW_METHODS = """
[phases.coverage]
unexpected-methods = ["PUT", "OPTIONS"]
"""
_BRIEF = """
[[operations]]
include-operation-id = "{name}"
phases.coverage.enabled = false
"""
_SECRET = re.compile(r"(?:pd_|whsec_)[A-Za-z0-9+/=_-]{20,}")  # a log must never hold one, whatever was asked


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is asked."""

    seed: int
    examples: int  # of each operation in each generating phase
    seconds: int | None = None  # fuzzing and following links go on until then
    brief: tuple[str, ...] = ()  # operations that the coverage phase, which tries every edge of a schema, leaves out


@dataclass
class Report:
    """What came of it."""

    operations: list[str]
    calls: dict[str, dict[str, int]]  # operation → status → how many
    cases: int
    seconds: float
    faults: list[str] = field(default_factory=list)
    output: str = ""

    @property
    def answered(self) -> list[str]:
        """The operations that did what they are for, at least once."""
        return [each for each in self.operations if any(int(s) < 400 for s in self.calls.get(each, {}))]

    def lines(self) -> list[str]:
        """For people."""
        told = [
            f"{each:24} " + "  ".join(f"{status}×{count}" for status, count in sorted(self.calls.get(each, {}).items()))
            for each in [*self.operations, "undeclared"]
        ]
        requests = sum(sum(each.values()) for each in self.calls.values())
        asked = sum(1 for each in self.operations if self.calls.get(each))
        told.append(
            f"{len(self.operations)} operations, {asked} exercised, {len(self.answered)} answered with success; "
            f"{self.cases} cases, {requests} requests in {self.seconds:.0f} s; {len(self.faults)} failures"
        )
        return told + [f"FAILED {fault}" for fault in self.faults]


def _operations(site: Site) -> list[str]:
    """Every operation of the document, which is put into the folder: schemathesis leaves out where it got it from."""
    served = httpx2.get(site.address + _DOCUMENT)
    (site.folder / "openapi.json").write_bytes(served.content)
    paths = served.json()["paths"]
    return [item[method]["operationId"] for item in paths.values() for method in _METHODS if method in item]


def _configured(site: Site, plan: Plan) -> Path:
    path = site.folder / "schemathesis.toml"
    path.write_text(
        _CONFIG.format(
            seed=plan.seed, key=site.facts.admin, examples=plan.examples,
            max_time=f"max-time = {plan.seconds}" if plan.seconds else "",
            without="\n".join(f"{name}.enabled = false" for name in _WITHOUT),
        )
        + (_FEW_METHODS if plan.brief else "")
        + "".join(_BRIEF.format(name=each) for each in plan.brief)
    )  # fmt: skip
    return path


def _let_loose(site: Site, plan: Plan) -> tuple[int, str]:
    told = site.folder / "run.json"
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(_configured(site, plan)),
        "run", str(site.folder / "openapi.json"), "--url", site.address, "--no-color", "--warnings", "off",
        "--report", "json", "--report-json-path", str(told),
    ]  # fmt: skip
    environment = os.environ | {"FUZZ_FOLDER": str(site.folder), "PYTHONPATH": str(_TESTS)}
    ended = subprocess.run(command, env=environment, cwd=site.folder, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def of_log(text: str, *, keys: list[str], prompts: list[str]) -> list[str]:
    """Tracebacks, errors, keys and prompts in the service's log."""
    found = []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            found.append(f"the log has a line that is not JSON: {line[:500]}")
            continue
        if "exception" in entry or entry["level"] in ("error", "critical"):
            found.append(f"the log says: {line[:3000]}")
    if told := [*_SECRET.findall(text), *(key for key in keys if key in text)]:
        found.append(f"the log has secrets: {told[:3]}")
    if told := [each for each in prompts if each in text]:
        found.append(f"the log has prompts: {told[:3]}")
    return found


def run(folder: Path, plan: Plan, *, database_url: str = "") -> Report:
    """The whole run, in `folder`; on SQLite unless told otherwise."""
    with open_site(folder, database_url=database_url) as site:
        operations = _operations(site)
        code, output = _let_loose(site, plan)
        (folder / "schemathesis.log").write_text(output)
        alive = site.process.poll() is None
        unsound = site.audit()
    told: dict[str, Any] = json.loads((folder / "run.json").read_text())
    tally: dict[str, Any] = json.loads((folder / "tally.json").read_text())
    report = Report(operations, tally["calls"], told["test_cases"]["generated"], told["running_time"], output=output)
    for each in told["failures"]:
        report.faults.append(f"{each['code']} {each['title']}: {', '.join(each['operations'])}")
    report.faults += [f"schemathesis: {each['title']} ×{each['count']}" for each in told["errors"]]
    if code and not report.faults:
        report.faults.append(f"schemathesis ended with {code}")
    report.faults += [f"{each} never did what it is for" for each in operations if each not in report.answered]
    if not alive:
        report.faults.append("the service has ended")
    report.faults += [f"the ledger is unsound: {each}" for each in unsound]
    keys = [site.facts.admin, site.facts.ordinary, site.facts.stranger]
    report.faults += of_log(site.log(), keys=keys, prompts=tally["prompts"])
    return report
