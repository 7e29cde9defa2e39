"""Thawline beside what users would take instead: see `benchmarks.peers.__main__`."""
