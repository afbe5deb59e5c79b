"""The online side."""
