"""The gateway's own ASGI app, around LiteLLM's: what it checks, admits and refuses."""
