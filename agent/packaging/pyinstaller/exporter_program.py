"""The frozen program sentinel-exporter. It does nothing itself."""

import sys

from sentinel_exporters.cli import main

sys.exit(main())
