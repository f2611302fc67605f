"""`python -m sentinel_agent`: the same as the command sentinel-agent."""

import sys

from .cli import main

sys.exit(main())
