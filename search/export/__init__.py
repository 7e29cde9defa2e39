"""`python -m search.export`: a model as a file that other programs run."""
