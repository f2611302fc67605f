"""`python -m sentinel_exporters` is the same as `sentinel-exporter`."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
