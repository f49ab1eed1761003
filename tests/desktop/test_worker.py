"""The dialogue's worker by itself: what it answers where there is little to be done."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from wgnet.desktop import worker
from wgnet.diagnostics import codes
from wgnet.keys.types import PrivateKey

from .test_summary import office

KEY = PrivateKey(bytes(range(32)))


def request(do: str = "apply", text: str | None = None) -> dict[str, Any]:
    topology = office() if text is None else text
    return {
        "do": do,
        "path": "/nowhere/office.wgnet.yaml",
        "topology": base64.b64encode(topology.encode()).decode(),
        "host": "laptop",
        "keys": None,
        "passphrase_file": None,
        "private_key": KEY.reveal(),
    }


@pytest.mark.parametrize("do", ["plan", "apply"])
def test_a_broken_topology_is_not_applied(do: str) -> None:
    found = worker.answer(request(do, office().replace("hub: fra", "hub: nobody")))
    assert found["status"] == 1
    assert [each["place"] for each in found["problems"]] == ["line 3, column 16"]


def test_root_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    found = worker.answer(request())
    assert found["status"] == 6
    assert [each["code"] for each in found["problems"]] == [codes.CANNOT_START.name]


def test_no_bus_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus")
    found = worker.answer(request())
    assert found["status"] == 6
    assert "D-Bus" in found["problems"][0]["message"]
    assert KEY.reveal() not in json.dumps(found)


def run(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "wgnet.desktop.worker"], input=text, capture_output=True, text=True, check=False
    )


def test_a_bug_is_told_without_what_it_was_about() -> None:
    done = run(json.dumps({**request(), "topology": KEY.reveal()[:-2]}))
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["status"] == 70
    assert "this is a bug in wgnet: Error at " in found["problems"][0]["message"]
    assert KEY.reveal()[:20] not in done.stdout


def test_nobody_who_asks_gets_no_answer() -> None:
    done = run("")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
