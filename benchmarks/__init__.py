"""Benchmarks, side by side with the peers; run by script/bench."""
