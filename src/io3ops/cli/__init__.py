"""The command line: flags -> one operation -> console -> exit code."""
