"""Fail unless a JUnit report tells of tests that all ran and passed: one skipped, or failing as expected, did not."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree


def main(path: str) -> int:
    """Return 0 for a clean report, else 1 after naming what did not run."""
    cases = list(ElementTree.parse(path).iter("testcase"))  # noqa: S314 - pytest wrote it a moment ago
    bad = [(case, what) for case in cases for what in ("skipped", "failure", "error") if case.find(what) is not None]
    for case, what in bad:
        reason = case.find(what)
        said = "" if reason is None else reason.get("message", "")
        print(f"{what}: {case.get('classname')}::{case.get('name')}: {said}", file=sys.stderr)
    if not cases:
        print("no tests were collected", file=sys.stderr)
    print(f"{len(cases)} tests, {len(bad)} of which skipped or failed")
    return 1 if bad or not cases else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
