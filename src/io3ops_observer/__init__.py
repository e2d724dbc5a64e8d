"""Turns the request log into metrics for Prometheus and traces for an OpenTelemetry collector.

It runs in a container of its own. It sees the log's lines and the table's names, never a prompt, and no request waits for it.
"""
