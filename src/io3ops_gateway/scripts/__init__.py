"""Programs that run on their own in a container: `python3 -I -S FILE`. They import nothing of this package."""
