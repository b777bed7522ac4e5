"""`python -m purejaxrl`."""

import sys

from purejaxrl.cli import main

if __name__ == "__main__":
    sys.exit(main())
