"""Plain requests to a healthy local model, without LiteLLM in between."""
