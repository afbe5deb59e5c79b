"""The recommender and the LLM component: plain PyTorch, plain vLLM."""
