"""The millrace command, one file a verb group."""
