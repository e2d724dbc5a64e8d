"""Writes the request log, and the content that `io3ops record` asks for."""
