"""Stylise pictures, data sets and clips: the command of the installed package, from a clone.

python stylize.py --content photo.jpg --style painting.jpg --output out.png
"""

import sys

from stylenet.applying import command
from stylenet.errors import run_script


def main(arguments: list[str]) -> int:
    """Exit code of one call."""
    return command.main(arguments, "stylize.py")


if __name__ == "__main__":
    sys.exit(run_script(main))
