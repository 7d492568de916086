"""python -m stylenet: the command that stylises pictures, data sets and clips."""

import sys

from stylenet.applying.command import main
from stylenet.errors import run_script


def run() -> int:
    """Exit code of the command `stylenet`."""
    return run_script(main)


if __name__ == "__main__":
    sys.exit(run())
