"""The Compose project: its engine, images, variables, networks, mounted files, start and reload."""
