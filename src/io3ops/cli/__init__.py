"""The command line: each command parses its options, calls one operation, prints the result and returns the exit code."""
