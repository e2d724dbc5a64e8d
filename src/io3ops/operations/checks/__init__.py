"""`io3ops status` and `io3ops health`: what runs, and whether it works."""
