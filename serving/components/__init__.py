"""The language model online: vLLM's own server behind the components' typed endpoints."""
