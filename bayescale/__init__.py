"""bayescale."""
