"""``python -m orchestra_lib``."""

import sys

from orchestra_lib.cli import main

sys.exit(main())
