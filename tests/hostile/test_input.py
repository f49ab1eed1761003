"""Topologies that nobody means well with: each is refused in words, in bounded time and memory."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli.command import OFFICE, PROGRAM, Result, environment, wgnet

MEGABYTE = 1024 * 1024


def check(folder: Path, data: bytes, *, seconds: float = 10, megabytes: int = 700) -> Result:
    """Check a file under limits; the answer must be words on stdout alone."""
    (folder / "t.yaml").write_bytes(data)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (megabytes * MEGABYTE, megabytes * MEGABYTE))

    start = time.monotonic()
    done = subprocess.run(
        [*PROGRAM, "check", "--format", "concise", "t.yaml"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=seconds * 6,
        preexec_fn=limit,
        check=False,
    )
    assert time.monotonic() - start < seconds * 6
    assert done.stderr == ""
    return Result(status=done.returncode, out=done.stdout, err=done.stderr)


def refused(folder: Path, data: bytes | str, code: str, *, seconds: float = 10, megabytes: int = 700) -> str:
    done = check(folder, data.encode() if isinstance(data, str) else data, seconds=seconds, megabytes=megabytes)
    assert done.status == 1
    assert f"[{code}]" in done.out
    assert all(line.isprintable() for line in done.out.split("\n"))
    return done.out


# --- size and depth --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opening", ["[", "{", "- ", "? ", "{a: ", "[[", "- - "])
def test_ten_megabytes_of_brackets(tmp_path: Path, opening: str) -> None:
    refused(tmp_path, opening * (10 * MEGABYTE // len(opening)), "WG1004")


def test_brackets_behind_a_key(tmp_path: Path) -> None:
    refused(tmp_path, f"{OFFICE}x-a: {'[' * 60_000}{']' * 60_000}\n", "WG1004")


def test_closing_brackets(tmp_path: Path) -> None:
    refused(tmp_path, "]" * MEGABYTE, "WG1001")


def test_anchors_that_multiply(tmp_path: Path) -> None:
    lines = ["x-0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"x-{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 25)]
    refused(tmp_path, OFFICE + "\n".join(lines) + "\n", "WG1003")


def test_anchors_that_deepen(tmp_path: Path) -> None:
    lines = ["x-0: &a0 [1]"] + [f"x-{n}: &a{n} [*a{n - 1}]" for n in range(1, 200)]
    refused(tmp_path, OFFICE + "\n".join(lines) + "\n", "WG1004")


def test_a_million_aliases_of_one_host(tmp_path: Path) -> None:
    lines = "".join(f"  h{n}: *h\n" for n in range(200_000))
    text = OFFICE.replace("  nyc:\n", "  nyc: &h\n") + lines
    refused(tmp_path, text, "WG1003")


def test_a_document_beyond_the_limit(tmp_path: Path) -> None:
    refused(tmp_path, OFFICE.encode() + b"#" * (65 * MEGABYTE), "WG1005")


def test_a_long_line_and_long_words(tmp_path: Path) -> None:
    long = "a" * (5 * MEGABYTE)
    for text in (
        OFFICE.replace("name: office", f"name: {long}"),
        OFFICE.replace("    endpoint", f"    {long}: 1\n    endpoint"),
        OFFICE.replace("fra.example.net", long),
        OFFICE.replace("10.80.0.2", long),
        OFFICE.replace("{hub: fra}", f"{{hub: {long}}}"),
    ):
        done = check(tmp_path, text.encode())
        assert done.status == 1
        assert len(done.out) < 10_000


@pytest.mark.parametrize("line", ["fra: {}\n  ", "x-a: 1\n  "])
def test_a_key_a_million_times(tmp_path: Path, line: str) -> None:
    out = refused(tmp_path, OFFICE.replace("  fra:\n", f"  {line * 300_000}fra:\n"), "WG1002", seconds=20)
    assert out.count("\n") < 300


def test_many_words_that_are_not_known(tmp_path: Path) -> None:
    lines = "".join(f"  h{n}: {{addresses: [10.90.{n // 250}.{n % 250 + 1}]}}\n" for n in range(10_000))
    members = ", ".join(f"g{n}" for n in range(50))
    refused(tmp_path, OFFICE.replace("hosts:\n", f"groups: {{g: [{members}]}}\nhosts:\n") + lines, "WG3008")


# --- many hosts ------------------------------------------------------------------------------------------------------


def test_a_mesh_of_too_many_hosts_is_refused(tmp_path: Path) -> None:
    hosts = "".join(f"  h{number}: {{}}\n" for number in range(20_000))
    head = "wgnet: 1\nnetwork: {name: o, subnets: [10.0.0.0/8]}\ndefaults: {all: {manager: external}}\nhosts:\n"
    out = refused(tmp_path, head + hosts, "WG3030", seconds=20)
    assert "the rules make 199,990,000 links, expected at most 2,096,128" in out


def test_many_hosts_at_a_hub_work(tmp_path: Path) -> None:
    lines = ["wgnet: 1", "network: {name: o, subnets: [10.0.0.0/8]}", "peering: {hub: hub}", "hosts:"]
    lines.append("  hub: {addresses: [10.0.0.1], endpoint: fra.example.net}")
    lines += [f"  h{number}: {{addresses: [10.1.{number // 250}.{number % 250 + 1}]}}" for number in range(10_000)]
    done = check(tmp_path, "\n".join(lines).encode(), seconds=20, megabytes=1000)
    assert (done.status, done.out.count("note[WG5001]"), done.out.count("[WG")) == (0, 10_001, 10_001)


# --- characters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("character", ["\x00", "\x07", "\x1b", "\x7f", "\x85", "\x9b", "\u2028", "\ufeff", "\ufffe"])
@pytest.mark.parametrize("place", ["name: off{}ice", "  fr{}a:", "# comment {}"])
def test_control_characters(tmp_path: Path, character: str, place: str) -> None:
    written = place.replace("{}", character)
    text = f"{OFFICE}{written}\n" if "#" in place else OFFICE.replace(place.replace("{}", ""), written)
    refused(tmp_path, text, "WG1009")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (OFFICE.replace("  nyc:", '  "nyc\\nevil":'), "WG2017"),
        (OFFICE.replace("name: office", 'name: "office\\nPrivateKey=x"'), "WG2017"),
        (OFFICE.replace("    endpoint", '    description: "a\\n[Match]\\nName=*"\n    endpoint'), "WG2030"),
        (OFFICE.replace("    endpoint", '    description: "\\e[2J"\n    endpoint'), "WG2030"),
        (OFFICE.replace("    endpoint", '    "a\\0b": 1\n    endpoint'), "WG2001"),
        (OFFICE.replace("    endpoint", '    "\\u202egnol": 1\n    endpoint'), "WG2001"),
        (OFFICE.replace("fra.example.net", '"fra\\n:5"'), "WG2019"),
        (OFFICE.replace("    endpoint", '    interface: "wg0\\n"\n    endpoint'), "WG2018"),
        (OFFICE.replace("    endpoint", '    interface: "../../x"\n    endpoint'), "WG2018"),
        (OFFICE.replace("    endpoint", '    private-key: {file: "/a\\n/b"}\n    endpoint'), "WG2027"),
        (OFFICE.replace("    endpoint", '    zone: "trusted\\n[ipv4]"\n    endpoint'), "WG2017"),
        (OFFICE.replace("  nyc:", "  ../../etc/passwd:"), "WG2017"),
        (OFFICE.replace("  nyc:", "  '':"), "WG2017"),
        (OFFICE.replace("name: office", "name: ../etc"), "WG2017"),
        (OFFICE.replace("  nyc:", '  "\\ud800":'), "WG1001"),
    ],
)
def test_texts_that_would_break_out_of_a_file_or_a_terminal(tmp_path: Path, text: str, code: str) -> None:
    refused(tmp_path, text, code)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xfe" + OFFICE.encode("utf-16-le"),
        b"\x80",
        OFFICE.encode() + b"\xc3",
        b"\xed\xa0\x80",  # a surrogate
        b"\xf8\x88\x80\x80\x80",  # five bytes
        b"\xc0\xaf",  # a slash in two bytes
    ],
)
def test_bytes_that_are_no_text(tmp_path: Path, data: bytes) -> None:
    refused(tmp_path, data, "WG1008")


def test_noise(tmp_path: Path) -> None:
    noise = Path(sys.executable).resolve().read_bytes()
    for number in range(8):
        start = len(noise) // 8 * number
        assert check(tmp_path, noise[start : start + 4000]).status == 1


# --- what is no file -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["directory", "pipe", "absent", "loop", "socket", "not UTF-8", "long", "below a file", "device"]
)
def test_what_is_no_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "t.yaml"
    name = str(path)
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to("t.yaml")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(name)
    elif kind == "long":
        name = "x" * 5000
    elif kind == "below a file":
        path.write_text(OFFICE)
        name = f"{path}/t.yaml"
    elif kind == "device":
        name = "/dev/zero"
    elif kind == "not UTF-8":
        name = os.fsdecode(b"t\xff.yaml")
    done = wgnet("check", name, cwd=tmp_path, timeout=20)
    assert (done.status, done.err) == (1, "")
    code = {"pipe": "WG1013", "device": "WG1005"}.get(kind, "WG1020")
    assert f"error[{code}]" in done.out
    for command in (["render", name], ["show", "a", "-f", name], ["keys", "show", name], ["diff", name, name]):
        assert wgnet(*command, cwd=tmp_path, timeout=20).status == 1


def test_a_pipe_that_somebody_writes_to_is_read_whole(tmp_path: Path) -> None:
    line = f"{{ head -c 300 t.yaml; sleep 0.3; tail -c +301 t.yaml; }} | {' '.join(PROGRAM)} check /dev/stdin"
    (tmp_path / "t.yaml").write_text(OFFICE)
    done = subprocess.run(
        ["sh", "-c", line], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "no problems: 1 network, 2 hosts\n")


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(OFFICE)
    (tmp_path / "t.yaml").chmod(0)
    arguments = [*PROGRAM, "check", "t.yaml"]
    # root reads everything: give up what lets it.
    if os.geteuid() == 0:
        arguments = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all", *arguments]
    done = subprocess.run(arguments, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "error[WG1020]: 't.yaml' cannot be read: permission denied" in done.stdout
