"""What a folder holds that stays when another folder takes its place.

Stage: disk. Input: the old folder and the new one, by descriptors. Output: hard links in the new one, and the old one
empty. Must not copy a content, follow a symbolic link, or lose a file that it did not expect.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from wgnet.system.files import FOLDER, backup_name, copy_attributes, identity

__all__ = ["carry", "clear_old"]


@dataclass(slots=True)
class _Copy:
    """A folder of the new tree beside its old one, made when something goes into it."""

    parent: _Copy | None
    source: int
    name: str
    #: A person's own folder keeps its times.
    foreign: bool
    descriptor: int = -1
    own: bool = True

    def open(self) -> int:
        if self.descriptor < 0:
            assert self.parent is not None
            parent = self.parent.open()
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.name, 0o700, dir_fd=parent)
                # A umask may have taken the owner's own rights, which opening it needs.
                os.chmod(self.name, 0o700, dir_fd=parent)
            self.descriptor = os.open(self.name, FOLDER, dir_fd=parent)
        return self.descriptor

    def close(self) -> None:
        if self.descriptor >= 0 and self.own:
            try:
                copy_attributes(self.source, self.descriptor, times=self.foreign)
            finally:
                os.close(self.descriptor)


def carry(old: int, new: int, skip: Collection[str], ours: Collection[str]) -> set[int]:
    """Link everything of the old folder into the new one, but the paths in `skip`; return the inodes.

    The folders in `ours` appear only if something is in them. Every folder gets the old one's owner, mode and
    attributes. Raises `OSError`.
    """
    inodes: set[int] = set()
    _carry(_Copy(None, old, "", False, new, own=False), "", skip, ours, inodes)
    return inodes


def _carry(copy: _Copy, prefix: str, skip: Collection[str], ours: Collection[str], inodes: set[int]) -> None:
    with os.scandir(copy.source) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False), entry.inode()) for entry in entries]
    for name, is_folder, inode in found:
        path = prefix + name
        if is_folder:
            source = os.open(name, FOLDER, dir_fd=copy.source)
            try:
                below = _Copy(copy, source, name, path not in ours)
                try:
                    if below.foreign:
                        below.open()
                    else:
                        # One that holds a staged file exists already, and takes over the old one's attributes.
                        with contextlib.suppress(FileNotFoundError):
                            if copy.descriptor >= 0:
                                below.descriptor = os.open(name, FOLDER, dir_fd=copy.descriptor)
                    _carry(below, f"{path}/", skip, ours, inodes)
                finally:
                    below.close()
            finally:
                os.close(source)
        elif path not in skip:
            os.link(name, name, src_dir_fd=copy.source, dst_dir_fd=copy.open(), follow_symlinks=False)
            inodes.add(inode)


def clear_old(
    old: int, new: int, carried: Collection[int], replaced: Mapping[str, tuple[int, int, int]], known: Collection[str]
) -> list[str]:
    """Remove all that is in the old folder, after the exchange; return the paths of what was rescued from it.

    `carried` are the inodes that the new folder has, `replaced` what was to go. What a person wrote into the old
    folder since it was read is none of these, and moves to the new one, under a name of its own if need be.
    Raises `OSError`.
    """
    rescued: list[str] = []
    _clear(old, new, "", carried, replaced, known, rescued)
    return rescued


def _clear(
    old: int,
    new: int,
    prefix: str,
    carried: Collection[int],
    replaced: Mapping[str, tuple[int, int, int]],
    known: Collection[str],
    rescued: list[str],
) -> None:
    with os.scandir(old) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False), entry.inode()) for entry in entries]
    for name, is_folder, inode in found:
        path = prefix + name
        if is_folder:
            descriptor = os.open(name, FOLDER, dir_fd=old)
            try:
                _clear(descriptor, new, f"{path}/", carried, replaced, known, rescued)
            finally:
                os.close(descriptor)
            os.rmdir(name, dir_fd=old)
            continue
        if inode not in carried and path not in known and identity(old, name) != replaced.get(path):
            rescued.append(_rescue(old, name, new, path))
        os.unlink(name, dir_fd=old)


def _rescue(old: int, name: str, new: int, path: str) -> str:
    """Link a file into the new folder, at its path if that is free; return where it is."""
    parents = path.split("/")[:-1]
    folder = os.dup(new)
    try:
        for part in parents:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=folder)
            below = os.open(part, FOLDER, dir_fd=folder)
            os.close(folder)
            folder = below
        free = name if identity(folder, name) is None else backup_name(folder, name)
        os.link(name, free, src_dir_fd=old, dst_dir_fd=folder, follow_symlinks=False)
    finally:
        os.close(folder)
    return "/".join([*parents, free])
