"""`io3ops status` and `io3ops health`: the state of the stack, and whether it works."""
