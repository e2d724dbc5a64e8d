"""Programs that run by themselves in a container: `python3 -I -S FILE`. They import nothing of this package."""
