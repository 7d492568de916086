"""python -m stylenet: the command that stylises pictures, data sets and clips, and `export`."""

import sys

from stylenet.applying.command import main
from stylenet.errors import run_script


def run() -> int:
    """Exit code of the command `stylenet`."""
    if sys.argv[1:2] == ["export"]:
        from stylenet.applying import export

        return run_script(lambda arguments: export.main(arguments[1:]))
    return run_script(main)


if __name__ == "__main__":
    sys.exit(run())
