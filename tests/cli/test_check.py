"""`wgnet check`, and what all commands share: statuses, streams, formats, colour, where the files come from."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from cli.command import BROKEN, INTERRUPTIBLE, KEYLESS, OFFICE, PROGRAM, WARNED, environment, wgnet

from wgnet.cli.context import Context
from wgnet.cli.main import _report_bug
from wgnet.cli.parser import build_parser
from wgnet.diagnostics.codes import CODES


@pytest.fixture
def office(tmp_path: Path) -> Path:
    (tmp_path / "office.yaml").write_text(OFFICE)
    (tmp_path / "broken.yaml").write_text(BROKEN)
    (tmp_path / "warned.yaml").write_text(WARNED)
    (tmp_path / "keyless.yaml").write_text(KEYLESS)
    return tmp_path


# --- statuses and streams --------------------------------------------------------------------------------------------


def test_a_sound_file(office: Path) -> None:
    done = wgnet("check", "office.yaml", cwd=office)
    assert (done.status, done.out, done.err) == (0, "no problems: 1 network, 2 hosts\n", "")


def test_diagnostics_are_the_result_of_check_and_on_stdout(office: Path) -> None:
    done = wgnet("check", "broken.yaml", cwd=office)
    assert (done.status, done.err) == (1, "")
    assert done.out.startswith("error[WG2010]: expected an IP address, found '10.80.0.300'\n  --> broken.yaml:11:17\n")
    assert done.out.endswith("\n1 error\n")


def test_diagnostics_of_other_commands_are_on_stderr(office: Path) -> None:
    for command in (
        ["render", "broken.yaml"],
        ["show", "fra", "-f", "broken.yaml"],
        ["diff", "office.yaml", "broken.yaml"],
    ):
        done = wgnet(*command, cwd=office)
        assert (done.status, done.out) == (1, ""), command
        assert "error[WG2010]" in done.err
    assert not (office / "rendered").exists()


def test_a_missing_key_is_a_note_in_check_and_an_error_in_render(office: Path) -> None:
    done = wgnet("check", "keyless.yaml", cwd=office)
    assert (done.status, done.err) == (0, "")
    assert done.out.count("note[WG5001]") == 2
    done = wgnet("render", "keyless.yaml", cwd=office)
    assert (done.status, done.out) == (1, "")
    assert done.err.count("error[WG5001]") == 2


def test_strict_makes_warnings_errors(office: Path) -> None:
    assert wgnet("check", "warned.yaml", cwd=office).status == 0
    done = wgnet("check", "--strict", "warned.yaml", cwd=office)
    assert (done.status, done.err) == (1, "")
    assert "warning[WG3013]" in done.out
    assert wgnet("show", "fra", "--strict", "-f", "warned.yaml", cwd=office).status == 1
    assert wgnet("check", "--strict", "office.yaml", cwd=office).status == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["nonsense"], ["check", "--nonsense"], ["check", "--format", "xml"], ["check", "--form", "json"], ["show"],
        ["diff", "one"], ["diff", "-f", "office.yaml", "office.yaml", "office.yaml"],
        ["keys"], ["keys", "nonsense"], ["render", "--runtime"], ["render", "--show-secrets"],
        ["render", "--stdout"], ["render", "--stdout", "--system"],
        ["render", "--system", "--host", "a", "--host", "b"],
        ["explain", "WG9999"], ["keys", "export", "fra"], ["keys", "generate", "--encrypt", "office.yaml"],
    ],
)  # fmt: skip
def test_usage(office: Path, arguments: list[str]) -> None:
    done = wgnet(*arguments, cwd=office)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(("usage: wgnet", "wgnet"))


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["check", "--help"], ["keys", "generate", "--help"]])
def test_help_is_a_result(tmp_path: Path, arguments: list[str]) -> None:
    done = wgnet(*arguments, cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    assert done.out


# --- formats ---------------------------------------------------------------------------------------------------------


def test_the_four_formats(office: Path) -> None:
    for option in ("--format", "--diagnostics"):
        found = json.loads(wgnet("check", option, "json", "broken.yaml", cwd=office).out)
        assert found["version"] == 1
        (one,) = found["diagnostics"]
        assert (one["code"], one["severity"]) == ("WG2010", "error")
        concise = wgnet("check", option, "concise", "broken.yaml", cwd=office).out
        assert concise.startswith("broken.yaml:11:17: error[WG2010] expected an IP address")
        github = wgnet("check", option, "github", "broken.yaml", cwd=office).out
        assert github.startswith("::error ")
    assert json.loads(wgnet("check", "--format", "json", "office.yaml", cwd=office).out)["diagnostics"] == []
    err = wgnet("show", "fra", "--diagnostics", "json", "-f", "broken.yaml", cwd=office).err
    assert json.loads(err)["diagnostics"][0]["code"] == "WG2010"


@pytest.mark.parametrize(
    ("arguments", "variables", "colour"),
    [
        ([], {}, False),
        (["--color", "always"], {}, True),
        (["--color", "always"], {"NO_COLOR": "1"}, True),
        (["--color", "never"], {"FORCE_COLOR": "1"}, False),
        (["--color", "auto"], {"TERM": "xterm-256color"}, False),
    ],
)
def test_colour_is_for_terminals_or_on_demand(
    office: Path, arguments: list[str], variables: dict[str, str], colour: bool
) -> None:
    for line in ([*arguments, "check", "broken.yaml"], ["check", *arguments, "broken.yaml"]):
        assert ("\x1b[" in wgnet(*line, cwd=office, **variables).out) is colour


# --- where topologies come from --------------------------------------------------------------------------------------


def test_files_by_position_by_option_and_from_standard_input(office: Path) -> None:
    other = OFFICE.replace("name: office, interface: wg0", "name: lab, interface: wg1, listen-port: 5").replace(
        "10.80", "10.81"
    )
    other = other.replace("192.168.10", "192.168.11")
    (office / "lab.yaml").write_text(other)
    for arguments in (
        ["office.yaml", "lab.yaml"],
        ["-f", "office.yaml", "-f", "lab.yaml"],
        ["office.yaml", "--file", "lab.yaml"],
    ):
        assert wgnet("check", *arguments, cwd=office).out == "no problems: 2 networks, 2 hosts\n"
    assert wgnet("check", "office.yaml", "./office.yaml", cwd=office).status == 1
    done = wgnet("check", "-", cwd=office, stdin=BROKEN)
    assert (done.status, "--> <stdin>:11:17" in done.out) == (1, True)
    assert wgnet("show", "nyc", "-f", "-", cwd=office, stdin=OFFICE).status == 0


def system(root: Path, **files: str) -> None:
    """Write files below a root; a name such as `etc__a` is a.yaml in the folder of that name."""
    folders = {"etc": "etc/wgnet", "run": "run/wgnet", "local": "usr/local/lib/wgnet", "usr": "usr/lib/wgnet"}
    for name, text in files.items():
        folder, _, stem = name.partition("__")
        (root / folders[folder]).mkdir(parents=True, exist_ok=True)
        (root / folders[folder] / (f"{stem}.yaml" if "." not in stem else stem)).write_text(text)


def test_the_systems_folders_in_their_order(tmp_path: Path) -> None:
    system(tmp_path, usr__a=BROKEN, local__a=BROKEN, run__a=BROKEN, etc__a=OFFICE)
    assert wgnet("check", "--root", tmp_path, cwd=tmp_path).status == 0
    (tmp_path / "etc/wgnet/a.yaml").unlink()
    for folder in ("run/wgnet", "usr/local/lib/wgnet", "usr/lib/wgnet"):
        done = wgnet("check", "--format", "concise", "--root", tmp_path, cwd=tmp_path)
        assert done.status == 1
        assert f"{folder}/a.yaml:11" in done.out
        (tmp_path / folder / "a.yaml").unlink()
    done = wgnet("check", "--root", tmp_path, cwd=tmp_path)
    assert (done.status, "error[WG1022]" in done.out) == (1, True)


@pytest.mark.parametrize("mask", ["empty", "/dev/null", "../../../dev/null"])
def test_an_empty_file_or_a_link_to_dev_null_masks(tmp_path: Path, mask: str) -> None:
    system(tmp_path, usr__a=BROKEN, usr__b=OFFICE)
    hidden = tmp_path / "etc/wgnet/a.yaml"
    hidden.parent.mkdir(parents=True)
    if mask == "empty":
        hidden.touch()
    else:
        depth = len(hidden.parent.resolve().parts) - 1
        hidden.symlink_to(mask if mask.startswith("/") else "../" * depth + "dev/null")
    assert wgnet("check", "--root", tmp_path, cwd=tmp_path).status == 0


def test_a_pipe_in_the_systems_folder_masks_nothing_and_stops_nobody(tmp_path: Path) -> None:
    system(tmp_path, usr__a=OFFICE)
    (tmp_path / "etc/wgnet").mkdir(parents=True)
    os.mkfifo(tmp_path / "etc/wgnet/a.yaml")
    done = wgnet("check", "--root", tmp_path, cwd=tmp_path, timeout=20)
    assert (done.status, "WG1013" in done.out) == (1, True)


def test_a_file_that_ends_in_yml_draws_a_warning(tmp_path: Path) -> None:
    system(tmp_path, **{"etc__a": OFFICE, "etc__b.yml": BROKEN, "etc__.hidden.yaml": BROKEN, "etc__c.yaml~": BROKEN})
    done = wgnet("check", "--root", tmp_path, cwd=tmp_path)
    assert (done.status, done.out.count("warning[WG1021]"), done.out.count("[WG")) == (0, 1, 1)


def test_a_folder_that_is_none_is_told(tmp_path: Path) -> None:
    system(tmp_path, usr__a=OFFICE)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/wgnet").write_text("")
    done = wgnet("check", "--root", tmp_path, cwd=tmp_path)
    assert (done.status, "error[WG1020]" in done.out) == (1, True)


# --- how a run ends --------------------------------------------------------------------------------------------------


def test_a_reader_that_goes_away(office: Path) -> None:
    for command in ("schema", "explain"):
        line = f"{' '.join(PROGRAM)} {command} | head -n 1"
        done = subprocess.run(
            ["sh", "-c", line], cwd=office, env=environment(), capture_output=True, text=True, check=False
        )
        assert done.stderr == ""
        assert done.stdout.count("\n") == 1


def test_a_full_disk_is_told(office: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = wgnet("check", "office.yaml", cwd=office, stdout=full)
    assert (done.status, done.err) == (70, "wgnet: cannot write to standard output: No space left on device\n")


def test_closed_streams(office: Path) -> None:
    shell = f"{' '.join(PROGRAM)} check - <&- >&- 2>&-; echo $?"
    done = subprocess.run(
        ["sh", "-c", shell], cwd=office, env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_interrupted(office: Path) -> None:
    os.mkfifo(office / "slow.yaml")
    writer = os.open(office / "slow.yaml", os.O_RDWR)
    try:
        child = subprocess.Popen(
            [*INTERRUPTIBLE, *PROGRAM, "check", "slow.yaml"],
            cwd=office,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        deadline = time.monotonic() + 20
        # It waits in read() of the pipe once its state is S and the pipe is open.
        while time.monotonic() < deadline:
            links = [os.readlink(one) for one in Path(f"/proc/{child.pid}/fd").iterdir() if one.is_symlink()]
            if any(link.endswith("slow.yaml") for link in links):
                break
            time.sleep(0.02)
        time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=20)
    finally:
        os.close(writer)
    assert (child.returncode, out, err) == (-signal.SIGINT, b"", b"")


def test_a_bug_prints_no_values(capsys: pytest.CaptureFixture[str]) -> None:
    secret = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
    context = Context.of(build_parser().parse_args(["check", "x.yaml"]))
    try:
        raise RuntimeError(f"the key is {secret}")
    except RuntimeError as error:
        assert _report_bug(error, context) == 70
    context.output.finish(70)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.match(
        r"wgnet: internal error: RuntimeError at test_check\.py:\d+ test_a_bug_prints_no_values\n", printed.err
    )
    assert secret not in printed.err
    assert "the key is" not in printed.err


# --- explain, schema -------------------------------------------------------------------------------------------------


def test_explain(tmp_path: Path) -> None:
    done = wgnet("explain", "wg3003", cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("WG3003: an endpoint lies inside what the tunnel routes (error)\n\n")
    assert "\nExample:\n" in done.out
    everything = wgnet("explain", cwd=tmp_path).out.splitlines()
    assert everything[0].split()[:2] == ["WG1001", "error"]
    assert len(everything) == len(CODES)


def test_schema(tmp_path: Path) -> None:
    done = wgnet("schema", cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    assert json.loads(done.out)["$id"] == "urn:wgnet:topology:1"


def test_diagnostic_of_the_contract_comes_out_byte_for_byte(tmp_path: Path) -> None:
    """The lines that others' eyes and scripts know, at the places that they know."""
    (tmp_path / "office.yaml").write_text(
        """\
wgnet: 1
network:
  name: office
  subnets: [10.80.0.0/24]
peering: {hub: fra}
hosts:
  nyc:
    addresses: [10.80.0.2]
    public-key: "PIobfPZ6qbsFqL4/I2pPMSmNCh5SHLXGmumJTZc8fh0="

  fra:
    addresses: [10.80.0.1]
    public-key: "lpIRNd1S7ubJMO6Slv8QGkddst2BxyxwuOfrCDtyRxc="
    endpoint: 192.168.10.5
    advertise: [192.168.10.0/24]
"""
    )
    done = wgnet("check", "office.yaml", cwd=tmp_path)
    assert done.status == 1
    assert done.out.startswith(
        """\
error[WG3003]: endpoint of 'fra' lies inside what the tunnel routes
  --> office.yaml:14:15
   |
14 |     endpoint: 192.168.10.5
   |               ^^^^^^^^^^^^ packets to this address would enter the tunnel they carry
   |
  ::: office.yaml:15:17
15 |     advertise: [192.168.10.0/24]
   |                 --------------- because fra advertises this
  help: use an address outside 192.168.10.0/24, or set `site-endpoint`
"""
    )
