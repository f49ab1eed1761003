"""Call functions as somebody who is not root: in another process, with nobody's groups and rights."""

from __future__ import annotations

import json
import os
import pkgutil
from collections.abc import Callable
from importlib import import_module
from typing import Any

import wgnet


def call_as_user(number: int, function: Callable[[], Any]) -> Any:
    """Return what a function returns for the user and group of that number, through JSON.

    The interpreter and the checkout may lie where only root may look (a clone in /root): what the function imports or
    reads of them must be there before; wgnet's own modules are.
    """
    for module in pkgutil.walk_packages(wgnet.__path__, "wgnet."):
        # The dialogue's window needs GTK, which only the distribution's own interpreter may have.
        if not module.name.endswith(("__main__", "desktop.dialog")):
            import_module(module.name)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(number)
            os.setuid(number)
            os.write(writer, json.dumps(function()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    assert status == 0
    return json.loads(answer)
