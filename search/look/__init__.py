"""`thawline look`: what a folder of images holds and whether it is enough, in seconds, without training and torch."""
