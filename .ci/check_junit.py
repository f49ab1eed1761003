"""Fail unless a JUnit report tells of tests that all ran and passed: one skipped, or failing as expected, did not.

Usage: check_junit.py REPORT [SUITE]. With a suite of the lab, every scenario of it must have a test in the report.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def main(path: str, suite: str | None = None) -> int:
    """Return 0 for a clean report, else 1 after naming what did not run."""
    cases = list(ElementTree.parse(path).iter("testcase"))  # noqa: S314 - pytest wrote it a moment ago
    bad = [(case, what) for case in cases for what in ("skipped", "failure", "error") if case.find(what) is not None]
    for case, what in bad:
        reason = case.find(what)
        said = "" if reason is None else reason.get("message", "")
        print(f"{what}: {case.get('classname')}::{case.get('name')}: {said}", file=sys.stderr)
    if not cases:
        print("no tests were collected", file=sys.stderr)
    missing = without_test(suite, [case.get("name", "") for case in cases]) if suite else []
    for scenario in missing:
        print(f"no test of scenario {scenario}", file=sys.stderr)
    print(f"{len(cases)} tests, {len(bad)} of which skipped or failed")
    return 1 if bad or missing or not cases else 0


def without_test(suite: str, names: list[str]) -> list[str]:
    """Return the scenarios that a suite of the lab has and no test is named after; print their number."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    from lab.scenarios import scenarios

    wanted = [scenario.id for scenario in scenarios(suite)]
    missing = [scenario for scenario in wanted if not any(f"[{scenario}]" in name for name in names)]
    print(f"{suite}: {len(wanted) - len(missing)} of {len(wanted)} scenarios")
    return missing


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
