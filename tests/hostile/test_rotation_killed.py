"""`wgnet keys rotate` killed, or failed, at every system call: no key is lost, and the next run ends what was begun."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli.command import KEYLESS, wgnet_here
from hostile.tracing import Ending, in_child, trace

from wgnet.keys.types import PrivateKey

PLACES = ("store", "host")
STEPS = ("prepare", "switch", "finish")


def keys_below(folder: Path) -> dict[str, str]:
    """Return the public keys of all private keys that lie below a folder, by their paths; damaged ones left out."""
    found = {}
    for path in sorted(folder.rglob("*.key*")):
        key = PrivateKey.parse(path.read_text("latin-1").strip())
        if isinstance(key, PrivateKey) and not path.name.startswith((".", "_")):
            found[str(path.relative_to(folder))] = key.public()
    return found


def keys_in(folder: Path) -> list[str]:
    """Return the public keys that the topology has of fra: the present one, and the next one if there is one."""
    text = next(folder.rglob("office.yaml")).read_text()
    part = text[text.index("  fra:") : text.index("  nyc:")]
    return re.findall(r'public-key: "(.{44})"', part)


def runner(place: str, work: Path) -> Callable[..., int]:
    """Return what runs `wgnet keys` with words, quietly."""
    options: tuple[str | Path, ...]
    if place == "store":
        options = ("--keys", work / "keys", "-f", work / "office.yaml")
    else:
        options = ("--root", work)

    def run(*words: str) -> int:
        return wgnet_here("keys", *words, *options).status

    return run


@pytest.fixture(params=PLACES)
def run(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., int]]:
    # Else argparse looks for its translations, hundreds of calls that have nothing to do with keys.
    monkeypatch.setenv("LANGUAGE", "C")
    work = tmp_path / "work"
    folder = work if request.param == "store" else work / "etc/wgnet"
    folder.mkdir(parents=True)
    (folder / "office.yaml").write_text(KEYLESS.replace("preshared-keys: true", "preshared-keys: false"))
    run = runner(request.param, work)
    assert run("generate", "--host", "fra") == 0
    yield run


def at(step: str, run: Callable[..., int]) -> None:
    """Bring fra to where the step is next."""
    for earlier in STEPS[: STEPS.index(step)]:
        assert run("rotate", earlier, "--host", "fra") == 0


def check_whole(work: Path, before: set[str]) -> None:
    """Whatever the topology names has its private key, and none of those is gone that were needed before."""
    kept = set(keys_below(work).values())
    named = keys_in(work)
    assert named
    assert set(named) <= kept
    assert len(named) == 1 or before <= kept


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("fault", [None, errno.EIO])
def test_a_step_that_is_stopped_at_any_call_loses_no_key_and_is_ended_by_the_next(
    step: str, fault: int | None, run: Callable[..., int], tmp_path: Path
) -> None:
    work, copy = tmp_path / "work", tmp_path / "copy"
    at(step, run)
    shutil.copytree(work, copy, symlinks=True)

    def action() -> int:
        return run("rotate", step, "--host", "fra")

    def restore() -> None:
        shutil.rmtree(work)
        shutil.copytree(copy, work, symlinks=True)

    assert action() == 0  # and now all modules are there
    goal = sorted(keys_below(work))
    stopped = 0
    for number in range(1, 3000):
        restore()
        before = set(keys_below(work).values())
        ending: Ending = trace(action, number, fault)
        check_whole(work, before)
        if ending.status is not None and not ending.call:
            assert ending.status == 0
            break
        stopped += 1
        if ending.status != 0:
            # A fault of the disk is told; a kill tells nothing.
            assert ending.status in (None, 1, 6), ending
        done = step == "finish" and is_done(work)
        assert in_child(action) == (1 if done else 0), (number, ending)
        check_whole(work, before)
        assert sorted(keys_below(work)) == goal, (number, ending)
        assert len(keys_in(work)) == (1 if step == "finish" else 2)
    else:
        pytest.fail("the run never came to its end")
    assert stopped > 3


def is_done(work: Path) -> bool:
    """Whether a stopped `finish` was stopped after its last deed, so that there is nothing left to finish."""
    return len(keys_in(work)) == 1 and not any("previous" in path for path in map(str, work.rglob("*.key*")))
