"""Each module wraps one thing outside this process. Adapters receive what they need and never import one another."""
