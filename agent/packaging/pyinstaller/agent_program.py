"""The frozen program sentinel-agent. It does nothing itself."""

import sys

from sentinel_agent.cli import main

sys.exit(main())
