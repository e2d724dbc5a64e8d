"""The request log (docs/request-log.md): its words, its reader, its files."""
