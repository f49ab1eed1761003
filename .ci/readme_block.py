"""Print the one block of README.md's shell commands that makes an environment and then runs a given command.

The block is a fence of `sh` that begins with `python3 -m venv`. Its commands are run as they stand, so that what
README promises cannot drift from what works.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

#: What tells the two blocks apart.
_MARKS = {"render": "/bin/wgnet render ", "pytest": "/bin/pytest"}


def main(readme: str, name: str) -> int:
    """Print the block; return 1 unless there is exactly one."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", Path(readme).read_text(), re.MULTILINE | re.DOTALL)
    found = [block for block in blocks if block.startswith("python3 -m venv") and _MARKS[name] in block]
    if len(found) != 1:
        print(f"{readme}: expected one 'sh' block with '{_MARKS[name].strip()}', found {len(found)}", file=sys.stderr)
        return 1
    print(found[0], end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
