"""`python -m attrtrain <command>`."""

import sys

from attrtrain.cli import main

sys.exit(main())
