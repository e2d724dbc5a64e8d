"""Everything that touches LiteLLM: its start, its app, its hooks, its HTTP client and its logs."""
