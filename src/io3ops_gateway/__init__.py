"""The process inside the gateway's image: LiteLLM's proxy behind an edge of our own.

May touch: its own process, the files mounted into the container, /tmp. Needs only the standard library,
uvicorn and LiteLLM; shares nothing with the host package `io3ops` but the schema of the rendered file.
"""
