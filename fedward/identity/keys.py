"""Private keys in files: made where they are used, never sent, and refused where others could read them."""

import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedward.errors import ConfigError
from fedward.files import write_durably

PRIVATE = 0o600
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_signing_key(path: Path) -> EllipticCurvePrivateKey:
    """A new P-256 key, on disk when this returns. Raises ConfigError where there is one: a key is never replaced."""
    key = generate_private_key(SECP256R1())
    _write(path, key)
    return key


def make_sealing_key(path: Path) -> X25519PrivateKey:
    """A new X25519 key, on disk when this returns. Raises ConfigError where there is one: a key is never replaced."""
    key = X25519PrivateKey.generate()
    _write(path, key)
    return key


def load_signing_key(path: Path) -> EllipticCurvePrivateKey:
    """Raises ConfigError for a file that is missing, others can read, or that holds no P-256 key."""
    key = _read(path)
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise ConfigError(f"key file {path}: expected a P-256 private key, got another kind of key")
    return key


def load_sealing_key(path: Path) -> X25519PrivateKey:
    """Raises ConfigError for a file that is missing, others can read, or that holds no X25519 key."""
    key = _read(path)
    if not isinstance(key, X25519PrivateKey):
        raise ConfigError(f"key file {path}: expected an X25519 private key, got another kind of key")
    return key


def check_private(path: Path) -> None:
    """Raises ConfigError for a secret's file that is missing or that others than its owner can read or write.

    A group may read one that is root's: so Kubernetes and Docker hand secrets to a program that is not root.
    """
    try:
        facts = path.stat()
    except OSError as error:
        raise ConfigError(f"key file {path}: {error.strerror}") from None
    mode = facts.st_mode
    if mode & (OTHERS & ~stat.S_IRGRP if facts.st_uid == 0 and os.geteuid() != 0 else OTHERS):
        raise ConfigError(
            f"key file {path}: others can reach it (mode {stat.S_IMODE(mode):03o}); "
            f"allow its owner only: `chmod {PRIVATE:o} {path}`"
        )


def _read(path: Path) -> object:
    check_private(path)
    try:
        return serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):  # its text could quote the file: not passed on
        raise ConfigError(f"key file {path}: expected a private key as PEM, without a password") from None


def _write(path: Path, key: EllipticCurvePrivateKey | X25519PrivateKey) -> None:
    if path.exists():
        raise ConfigError(f"key file {path}: there is a key already, and no key is ever replaced; name another folder")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_durably(path, text, PRIVATE)
