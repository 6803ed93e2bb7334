"""`python -m tracegraph`: the command line."""

import sys

from tracegraph.cli.arguments import main

if __name__ == "__main__":
    sys.exit(main())
