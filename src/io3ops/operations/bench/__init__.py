"""`io3ops bench`: what the gateway costs, measured."""
