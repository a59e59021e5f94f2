"""`python -m streamlift.cli`, the same as the command `streamlift`."""

import sys

from streamlift.cli import main

sys.exit(main())
