"""`io3ops usage`: what went where."""
