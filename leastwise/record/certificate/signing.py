"""Signing with Ed25519 (RFC 8032) by the package cryptography: the key's file, a signature, and whether one holds.

The key is the PEM file that LEASTWISE_SIGNING_PEM names, else one made on first use under the state directory, for this
user alone. A signature says that nothing changed since whoever has the key signed it; who that is, the reader knows by
the key's fingerprint.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from leastwise.errors import BadInput
from leastwise.part import Part
from leastwise.stores import storage

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

VARIABLE = "LEASTWISE_SIGNING_PEM"
OTHERS = 0o077  # the mode's bits for group and world


class Signature(Part):
    """A signature with the public key that it can be checked by; keys and values in base64."""

    algorithm: Literal["Ed25519"] = "Ed25519"
    public_key: str = Field(description="The 32 bytes of the key.")
    fingerprint: str = Field(description="SHA256: and the base64 of the public key's SHA-256, as ssh writes it.")
    value: str = Field(description="The 64 bytes of the signature.")


def signed_bytes(content: object) -> bytes:
    """What is signed: the JSON of the content with sorted names, without blanks, everything but ASCII escaped."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sign(content: object, home: Path) -> Signature:
    """Sign a JSON value; BadInput where the key cannot be used."""
    key = _key(home)
    public = key.public_key().public_bytes_raw()
    value = base64.b64encode(key.sign(signed_bytes(content))).decode()
    return Signature(public_key=base64.b64encode(public).decode(), fingerprint=fingerprint_of(public), value=value)


def problem_of(content: object, signature: Signature) -> str | None:
    """Why a signature does not hold for a JSON value, or None."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        public = base64.b64decode(signature.public_key, validate=True)
        Ed25519PublicKey.from_public_bytes(public).verify(
            base64.b64decode(signature.value, validate=True), signed_bytes(content)
        )
    except InvalidSignature:
        return "it does not hold: something was changed after it was signed"
    except ValueError as error:
        return f"it cannot be read ({error})"
    if signature.fingerprint != fingerprint_of(public):
        return f"the fingerprint {signature.fingerprint} is not that of its key ({fingerprint_of(public)})"
    return None


def fingerprint_of(public_key: bytes) -> str:
    """A public key in words."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(public_key).digest()).decode().rstrip("=")


def check_key(home: Path) -> None:
    """BadInput where the key that is named, or was made before, cannot be used; makes none."""
    path = _path(home)
    if os.environ.get(VARIABLE) or path.exists():
        _read(path)


def _path(home: Path) -> Path:
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else home / "keys" / "certificates.pem"


def _key(home: Path) -> Ed25519PrivateKey:
    path = _path(home)
    if not (os.environ.get(VARIABLE) or path.exists()):
        _make(path)
    return _read(path)


def _make(path: Path) -> None:
    """A new key for this user alone; who comes second keeps the first's."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    storage.check_writable(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    number, name = tempfile.mkstemp(dir=path.parent, prefix=".key-")  # made with mode 0600
    unfinished = Path(name)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        if not path.exists():
            os.link(unfinished, path)
    except FileExistsError:
        return
    finally:
        unfinished.unlink()


def _read(path: Path) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    where = f"{path} ({VARIABLE})" if os.environ.get(VARIABLE) else str(path)
    try:
        mode, pem = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise BadInput(f"{where}: the signing key cannot be read ({error.strerror}); name another file") from None
    if mode & OTHERS:
        raise BadInput(f"{where}: others may read or change the signing key; run chmod 600 {path}")
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise BadInput(
            f"{where}: is no Ed25519 key in PEM without a password; make one with "
            "`openssl genpkey -algorithm ed25519 -out FILE`"
        )
    return key
