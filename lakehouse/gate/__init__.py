"""How does a batch become a published version? Staged, judged, merged, audited, published; or quarantined."""
