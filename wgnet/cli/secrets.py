"""Opens what the options of a command say of secrets: the key store and its passphrase."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from wgnet.cli.context import Context
from wgnet.diagnostics import codes
from wgnet.diagnostics.words import system_reason
from wgnet.system.keystore import KeyStore


def open_store(context: Context, *, must_exist: bool = True, encrypt: bool = False) -> KeyStore | None:
    """Return the key store that `--keys` names, or None without the option."""
    folder = context.options.keys
    if folder is None:
        return None
    return KeyStore(Path(folder), _passphrase(context, encrypt), encrypt=encrypt, must_exist=must_exist)


def _passphrase(context: Context, new: bool) -> Callable[[], bytes | None]:
    def ask() -> bytes | None:
        """Return the passphrase, or None after reporting why there is none."""
        file = context.options.passphrase_file
        if file is not None:
            try:
                with Path(file).open("rb") as stream:
                    return stream.readline(4096).rstrip(b"\r\n")
            except OSError as error:
                reason = system_reason(error)
                context.diagnostics.report(codes.PASSPHRASE, f"passphrase file '{file}' cannot be read: {reason}")
                return None
        if not sys.stdin.isatty():
            context.diagnostics.report(
                codes.PASSPHRASE,
                "the key store has a passphrase, and there is no terminal to ask for it",
                help="name a file that holds it: --passphrase-file FILE",
            )
            return None
        import getpass

        first = getpass.getpass("Passphrase of the key store: ")
        if new and getpass.getpass("The same again: ") != first:
            context.diagnostics.report(codes.PASSPHRASE, "the two passphrases differ")
            return None
        return first.encode()

    return ask
