"""`python -m io3ops_gateway`: start the gateway. Everything is in `launcher`."""

import sys

from io3ops_gateway.server.launcher import main

if __name__ == "__main__":
    sys.exit(main())
