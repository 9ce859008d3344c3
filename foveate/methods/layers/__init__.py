"""Methods inside the LLM."""
