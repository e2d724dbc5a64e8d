"""What runs inside the gateway image: it starts LiteLLM's proxy and answers for its health.

May touch: its own process, the files mounted into the container, /tmp. Needs only the standard library,
uvicorn and LiteLLM; shares nothing with the host package `io3ops` but the schema of the rendered file.
"""
