"""How is a person erased? From every table, version and file, for good."""
