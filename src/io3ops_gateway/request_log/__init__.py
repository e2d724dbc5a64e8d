"""The request log and the content capture: an entry, its file, its writer."""
