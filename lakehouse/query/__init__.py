"""How is a lake asked? References, readers, differences between versions, SQL."""
