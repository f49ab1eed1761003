"""What a manager module returns: files as they are to stand on a host. Nothing here touches a disk."""

from __future__ import annotations

from wgnet.record import record


@record()
class Artifact:
    """One file, or one symbolic link, of one host.

    `path` is absolute and normalised, as on the host. A symbolic link has `target` and no content. `owner` and `group`
    are names, since numbers differ between hosts. `secret` says that the content holds a key and must be masked
    wherever it is shown. `network` names the topology that the file belongs to.
    """

    path: str
    network: str
    content: bytes = b""
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"
    target: str | None = None
    secret: bool = False

    def __repr__(self) -> str:
        return f"<Artifact {self.path} {self.mode:04o} {self.owner}:{self.group}>"
