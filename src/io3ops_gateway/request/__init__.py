"""One request: its context, its record, its client's connection, and how its response reads."""
