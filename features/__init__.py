"""The feature store: Feast over pinned Delta versions."""
