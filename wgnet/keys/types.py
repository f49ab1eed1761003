"""Secrets that never print themselves.

Stage: keys. Input: base64 text or bytes; output: values whose only way out is `reveal()`. No text form,
error, pickle or copy of them holds the secret. This module opens no file, and imports cryptography only
where a key is made or its public half is computed, so that commands that do neither start quickly.
"""

from __future__ import annotations

import binascii

from wgnet.keys.base64 import KeyProblem, check_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, NoReturn, Self

__all__ = ["HIDDEN", "KEY_BYTES", "MasterSecret", "PresharedKey", "PrivateKey", "Secret"]

#: What stands wherever a secret would be shown.
HIDDEN = "(hidden)"
#: The length of every key; WG_KEY_LEN of linux/wireguard.h.
KEY_BYTES = 32


class Secret:
    """32 secret bytes: equal in constant time, immutable, and without hash, pickle or text form."""

    __slots__ = ("_raw",)
    _raw: bytes
    #: A hash would be a fingerprint of the secret that looks harmless.
    __hash__: ClassVar[None]  # type: ignore[assignment]

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_BYTES:
            raise ValueError(f"expected {KEY_BYTES} bytes, found {len(raw)}")
        object.__setattr__(self, "_raw", self._shape(bytes(raw)))

    @staticmethod
    def _shape(raw: bytes) -> bytes:
        return raw

    @classmethod
    def parse(cls, text: str) -> Self | KeyProblem:
        """Return the secret that `text` is in strict base64, or what is wrong with the text."""
        problem = check_key(text)
        return cls(binascii.a2b_base64(text)) if problem is None else problem

    @classmethod
    def generate(cls) -> Self:
        """Make a new secret from the system's random numbers, as `wg genpsk` does."""
        import secrets  # brings OpenSSL along, which takes longer than most checks

        return cls(secrets.token_bytes(KEY_BYTES))

    def reveal(self) -> str:
        """Return the secret in base64: the one way to read it, for where a file or a socket takes it."""
        return binascii.b2a_base64(self._raw, newline=False).decode("ascii")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret) or type(other) is not type(self):
            return NotImplemented
        import hmac

        return hmac.compare_digest(self._raw, other._raw)

    def __repr__(self) -> str:
        return HIDDEN

    def __str__(self) -> str:
        return HIDDEN

    def __format__(self, spec: str) -> str:
        return HIDDEN

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a {type(self).__name__} does not change")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a {type(self).__name__} does not change")

    def __getstate__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} is not to be pickled")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} is not to be pickled")


class PrivateKey(Secret):
    """A host's X25519 private key, clamped (RFC 7748, section 5) as `wg genkey` and `wg show` have it."""

    __slots__ = ()

    @staticmethod
    def _shape(raw: bytes) -> bytes:
        return bytes((raw[0] & 0xF8, *raw[1:31], raw[31] & 0x7F | 0x40))

    @classmethod
    def generate(cls) -> Self:
        """Make a new private key with cryptography's X25519."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        # `private_bytes_raw` is younger than the oldest cryptography that is supported (38).
        return cls(
            X25519PrivateKey.generate().private_bytes(
                serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
            )
        )

    def public(self) -> str:
        """Return the public key of this private key in base64, as `wg pubkey` does."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        private = X25519PrivateKey.from_private_bytes(self._raw)
        raw = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return binascii.b2a_base64(raw, newline=False).decode("ascii")


class PresharedKey(Secret):
    """The symmetric key of one link, as `wg genpsk` makes it."""

    __slots__ = ()


class MasterSecret(Secret):
    """What the preshared keys of a network are derived from; it stays in the key store."""

    __slots__ = ()
