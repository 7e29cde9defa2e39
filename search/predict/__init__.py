"""The steps of `python -m search.predict`: arguments, the list of images, the table, the maps."""
