"""The pages of WG6xxx: files, folders and templates. No topology draws them: they depend on the machine."""

from __future__ import annotations

from wgnet.diagnostics import codes
from wgnet.diagnostics.explanations.explanation import Explanation

PAGES = (
    Explanation(
        code=codes.CANNOT_WRITE,
        meaning=(
            "The system did not let wgnet write a file or folder; the message names its reason. Files are staged "
            "beside their places and renamed together, so what stood there before stands there again, whole. Should "
            "even that have failed, the message says so, and the next run finishes it first from the journal that was "
            "left."
        ),
        way_out=(
            "Check the owner and mode of the folder, the space on the disk, and whether it is mounted read-only. The "
            "system's own folders need root; `wgnet render -o DIR` writes anywhere without it."
        ),
    ),
    Explanation(
        code=codes.CHANGED_BY_HAND,
        meaning=(
            "Someone edited a file after wgnet had written it. Writing it anew would lose that change, and keeping it "
            "would leave the host other than the topology says; neither is done without being asked for."
        ),
        way_out=(
            "Compare it with what `wgnet render --stdout` prints. Carry what is to stay into the topology, or into a "
            "drop-in of your own beside the file, which wgnet does not touch; then repeat the command with `--force`, "
            "which keeps the present version beside it under another name."
        ),
    ),
    Explanation(
        code=codes.NOT_A_REGULAR_FILE,
        meaning=(
            "Something of another kind stands where a file goes: a folder, a symbolic link, a device or a socket, or "
            "a file where a link goes. wgnet does not write through a link, since that could lead anywhere, and "
            "removes nothing that it did not put there."
        ),
        way_out="Look at it with `ls -l`, and move it away if nobody needs it.",
    ),
    Explanation(
        code=codes.LOCKED,
        meaning=(
            "Another wgnet is writing to the same place. Two at a time would mix their files, so the later one stops "
            "before it has touched anything."
        ),
        way_out="Wait until it has ended, then try again.",
    ),
    Explanation(
        code=codes.UNKNOWN_HOST_ARGUMENT,
        meaning=(
            "The host that was named with `--host`, stands in /etc/wgnet/host, or is this machine's short host name, "
            "is in none of the topology files that were read, or is disabled or external there, so nothing is made for "
            "it. Hosts go by the names that they have under `hosts`."
        ),
        way_out=(
            "Check the spelling and the list of files. If the machine has another name than in the topology, write "
            "that name into /etc/wgnet/host."
        ),
    ),
    Explanation(
        code=codes.TEMPLATE,
        meaning=(
            "A template of the files to be written is missing, is not valid Jinja2, or asks for something that it is "
            "not given. wgnet's own templates are tested; one of the administrator's that replaces one of them may "
            "have been made for another version."
        ),
        way_out="Compare the template at the place shown with the one that comes with this version, or remove it.",
    ),
    Explanation(
        code=codes.GROUP_MISSING,
        meaning=(
            "Files with secrets belong to root and are readable for the group of the service that reads them, such as "
            "systemd-network. This machine has no such group, so the file is left to root alone. systemd-networkd, "
            "which does not run as root, would ignore a file that it cannot read."
        ),
        way_out=(
            "On the host itself install the service, which brings its group. In an image build write the files after "
            "its packages."
        ),
    ),
)
