"""`python -m io3ops` runs the `io3ops` command."""

from io3ops.cli.main import run

if __name__ == "__main__":
    run()
