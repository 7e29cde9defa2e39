"""Where trials run: a protocol and its implementations."""
