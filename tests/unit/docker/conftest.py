"""The programs that build the images are scripts, not a package: `docker` is the name of another one."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[3] / "docker"))
