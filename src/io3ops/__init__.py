"""io3ops: renders the gateway's configuration from one routing table, and runs the local LLM stack."""

__version__ = "0.2.0"
