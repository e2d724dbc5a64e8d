"""`io3ops models` and `io3ops pull`."""
