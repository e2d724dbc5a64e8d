"""What reads the request log beside the gateway: metrics for Prometheus, traces for an OpenTelemetry collector.

A process of its own, in a container of its own. It sees the log's lines and the table's names, never a prompt, and nothing waits for it.
"""
