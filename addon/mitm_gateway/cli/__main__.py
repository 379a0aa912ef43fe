"""Entry point of `python -m mitm_gateway.cli`."""

import sys

from . import main

sys.exit(main())
