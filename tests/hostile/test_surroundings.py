"""Surroundings that are not as a program expects them: no working directory, no room for a file, odd arguments."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path

import pytest
from cli.command import OFFICE, PROGRAM, Result, environment, wgnet


def without_folder(tmp_path: Path, *arguments: str) -> Result:
    """Run one command line in a folder that is gone."""
    gone = tmp_path / "gone"
    gone.mkdir()
    (tmp_path / "t.yaml").write_text(OFFICE)
    command = ["sh", "-c", 'rmdir ../gone && exec "$@"', "sh", *PROGRAM, *arguments]
    done = subprocess.run(command, cwd=gone, env=environment(), capture_output=True, text=True, check=False)
    return Result(status=done.returncode, out=done.stdout, err=done.stderr)


def test_a_render_in_a_folder_that_is_gone(tmp_path: Path) -> None:
    done = without_folder(tmp_path, "render", f"{tmp_path}/t.yaml", "--diagnostics", "concise")
    assert (done.status, done.out) == (6, "")
    assert "error[WG6001] cannot write 'rendered': no such file or directory" in done.err


def test_an_export_in_a_folder_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(OFFICE.replace("    public-key", "    x-key"))
    assert wgnet("keys", "generate", "t.yaml", "--keys", "keys", cwd=tmp_path).status == 0
    topology = (tmp_path / "t.yaml").read_text()
    arguments = ("keys", "export", "fra", "-f", f"{tmp_path}/u.yaml", "--keys", f"{tmp_path}/keys", "-o", "out")
    (tmp_path / "u.yaml").write_text(topology)
    done = without_folder(tmp_path, *arguments)
    assert (done.status, done.out) == (6, "")
    assert "error[WG6001]: cannot write 'out': no such file or directory" in done.err


@pytest.mark.parametrize("largest", [0, 1, 100, 500])
def test_a_limit_on_the_size_of_files_leaves_nothing(tmp_path: Path, largest: int) -> None:
    (tmp_path / "t.yaml").write_text(OFFICE)

    def limit() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    done = subprocess.run(
        [*PROGRAM, "render", "t.yaml", "--diagnostics", "concise"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        preexec_fn=limit,
        check=False,
    )
    assert (done.returncode, done.stdout) == (6, "")
    assert ": file too large; nothing was changed" in done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.yaml"]


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_a_template_that_is_no_file(tmp_path: Path, kind: str) -> None:
    template = tmp_path / "image/etc/wgnet/templates/networkd/netdev.j2"
    template.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(template)
    else:
        template.mkdir()
    (tmp_path / "t.yaml").write_text(OFFICE)
    done = wgnet("render", "t.yaml", "--root", "image", "--diagnostics", "concise", cwd=tmp_path, timeout=20)
    assert (done.status, done.out) == (1, "")
    assert "error[WG6006] template 'image/etc/wgnet/templates/networkd/netdev.j2': " in done.err


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_a_name_of_the_host_that_is_no_file(tmp_path: Path, kind: str) -> None:
    name = tmp_path / "image/etc/wgnet/host"
    name.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(name)
    elif kind == "folder":
        name.mkdir()
    else:
        name.symlink_to("/dev/zero")
    (tmp_path / "t.yaml").write_text(OFFICE)
    done = wgnet(
        "render", "t.yaml", "--system", "--root", "image", "--diagnostics", "concise", cwd=tmp_path, timeout=20
    )
    assert done.status in (1, 6)
    assert "error[WG6005]" in done.err
    assert done.err.isprintable() or all(line.isprintable() for line in done.err.splitlines())


def test_no_name_on_the_command_line_drives_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(OFFICE.replace("    public-key", "    x-key"))
    name = "\x1b[31m\x9b2J\u202e"
    for arguments in (
        ("init", name),
        ("explain", name),
        ("keys", "generate", "t.yaml", "--keys", f"{name}keys"),
        ("keys", "export", "fra", "-f", "t.yaml", "--keys", f"{name}keys", "-o", f"{name}out"),
        ("render", "t.yaml", "--keys", f"{name}keys", "-o", f"{name}rendered"),
        ("render", "t.yaml", "--keys", f"{name}keys", "-o", f"{name}rendered", "--host", name),
        ("show", name, "-f", "t.yaml"),
        ("diff", f"{name}none", "t.yaml"),
        ("check", f"{name}none"),
    ):
        done = wgnet(*arguments, cwd=tmp_path)
        said = done.out + done.err
        assert said
        assert all(line.isprintable() for line in said.splitlines()), (arguments, said)
        assert "\u202e" not in said
        assert r"\x1b[31m\x9b2J\u202e" in said


@pytest.mark.parametrize("option", ["--root", "--keys", "-o", "--passphrase-file"])
def test_a_path_of_nothing_is_no_path(tmp_path: Path, option: str) -> None:
    (tmp_path / "t.yaml").write_text(OFFICE)
    for command in (("render", "t.yaml"), ("keys", "export", "fra", "-f", "t.yaml")):
        done = wgnet(*command, option, "", cwd=tmp_path)
        assert (done.status, done.out) == (2, "")
        assert done.err.endswith(": expected a path, found nothing\n")
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.yaml"]
