"""The commands that show what happens now: `logs`, `top`. Like `cli`: flags -> one operation -> console -> exit code."""
