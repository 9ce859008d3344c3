"""Projectors of methods, in place of the one between vision encoder and LLM."""
