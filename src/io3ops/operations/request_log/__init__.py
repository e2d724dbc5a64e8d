"""Reading and pruning the request log."""
