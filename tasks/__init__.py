"""The typed, cached Flyte tasks that workflows are made of."""
