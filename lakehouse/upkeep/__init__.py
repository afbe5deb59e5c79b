"""How does a lake stay fast, small and right? Restore, pins, compaction, vacuum."""
