"""Where did it come from, and what became of it? Lineage, here and as OpenLineage events."""
