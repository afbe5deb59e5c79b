"""What runs: short, readable recipes and their launch plans."""
