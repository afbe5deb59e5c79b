"""LLM components: a typed question, asked once of each row, with every answer kept."""
