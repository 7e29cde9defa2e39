"""The report of a study: one self-contained page, and the same data as JSON."""
