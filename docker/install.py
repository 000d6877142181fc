"""Runs inside an image's build, by the image's own Python and without a network: installs what the context holds.

    install.py packages    every line of lock.txt, from /context/wheels, to /opt/fedward/lib
    install.py program     /context/source to /opt/fedward/app, and the command `fedward`

Both compile bytecode, to a tree of its own beside them: the root is read-only when the image runs, and torch would
be compiled at every start. The same input gives the same bytes.
"""

import compileall
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from py_compile import PycInvalidationMode

CONTEXT = Path("/context")
HOME = Path("/opt/fedward")
STATE = Path("/var/lib/fedward")
USER_ID = 10001

PRUNED = (
    "bin",  # of packages: nothing but `fedward` is to be run
    "**/include", "**/*.h", "**/*.a", "**/*.pyi", "**/*.pyx", "**/*.pxd", "torch/share", "torch/bin/protoc*",
    "torch/test", "pyarrow/tests", "pyarrow/src", "numpy/**/tests", "numpy/_core/_simd.*",
    "networkx/**/tests", "sympy/**/tests", "sqlalchemy/testing", "alembic/testing",
    "zstandard/_cffi.*", "zstandard/backend_cffi.py",  # for another kind of Python
    "numpy/distutils", "cffi", "pycparser",  # build what is built already
    "pydantic/v1", "sqlalchemy/dialects/mssql", "sqlalchemy/dialects/mysql", "sqlalchemy/dialects/oracle",
    "anyio/_backends/_trio.py", "anyio/pytest_plugin.py", "fastapi/.agents",  # of others
)  # fmt: skip
"""Compilers' headers, compilers, tests of others, and what nothing imports here."""

NOT_RUN = re.compile(r"/usr/lib/python3\.11/(distutils|pydoc_data|test|turtle|venv|xmlrpc)")
"""Of Python's own, what is not worth its bytecode."""

LAUNCHER = """\
#!/usr/bin/python3.11 -P
import signal
import sys

# The first process of a container ignores a signal that it has no handler for, and imports take a second.
signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))

from fedward.cli import main

sys.exit(main())
"""


def pip(*arguments: str) -> None:
    """pip from its wheel: no image has it installed."""
    quiet = ("--no-cache-dir", "--disable-pip-version-check", "--no-index", "--find-links", str(CONTEXT / "wheels"))
    command = [sys.executable, "-B", str(CONTEXT / "pip.whl" / "pip"), "install", *quiet, "--no-compile", "--no-deps"]
    # Bytecode of what is there for the build alone, under a name by chance, would stay.
    environment = os.environ | {"PIP_ROOT_USER_ACTION": "ignore", "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([*command, *arguments], check=True, env=environment)


def install_packages() -> None:
    """What the lock names, each file by its hash, without what no program here needs; Python's own bytecode, too."""
    lib = HOME / "lib"
    pip("--require-hashes", "--only-binary", ":all:", "--target", str(lib), "-r", str(CONTEXT / "lock.txt"))
    for pattern in PRUNED:
        for path in sorted(lib.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)  # gone with its folder
    compile_all(Path(os.__file__).parent, lib)


def install_program() -> None:
    """Fedward itself, and the folders that its user owns."""
    shutil.copytree(CONTEXT / "source", "/tmp/source")  # noqa: S108 - nobody else is in this container
    pip("--target", str(HOME / "app"), "/tmp/source")  # noqa: S108
    shutil.rmtree(HOME / "app" / "bin")
    launcher = HOME / "bin" / "fedward"
    launcher.parent.mkdir()
    launcher.write_text(LAUNCHER)
    launcher.chmod(0o755)
    (HOME / "tasks").mkdir()  # for a hospital's own: an image that is made of this one puts them here
    STATE.mkdir(mode=0o700)
    os.chown(STATE, USER_ID, USER_ID)
    compile_all(HOME / "app")


def compile_all(*folders: Path) -> None:
    """Never looked at again: what is in an image does not change."""
    for folder in folders:
        mode = PycInvalidationMode.UNCHECKED_HASH
        compileall.compile_dir(folder, maxlevels=50, quiet=2, rx=NOT_RUN, invalidation_mode=mode)


if __name__ == "__main__":
    {"packages": install_packages, "program": install_program}[sys.argv[1]]()
