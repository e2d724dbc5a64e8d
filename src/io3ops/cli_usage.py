"""The commands that read the request log: `usage`, `trace`. Like `cli`: flags -> one operation -> console -> exit code."""
