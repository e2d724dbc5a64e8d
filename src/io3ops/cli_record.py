"""The commands that keep content for a while: `record`. Like `cli`: flags -> one operation -> console -> exit code."""
