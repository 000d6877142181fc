"""`fedward`, killed at a step of the appliance: `python -m tests.containers.appliance.die STEP SIDE ARGUMENTS`."""

import sys

from fedward import cli
from sandbox.die import arm
from sandbox.steps import APPLIANCE_STEPS, RETURN_STEPS

if __name__ == "__main__":
    arm({**APPLIANCE_STEPS, **RETURN_STEPS}[sys.argv[1]], sys.argv[2])
    sys.exit(cli.main(sys.argv[3:]))
