"""Methods before the LLM."""
