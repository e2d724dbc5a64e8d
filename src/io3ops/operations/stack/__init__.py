"""The Compose project: its engine, images, variables, start and reload."""
