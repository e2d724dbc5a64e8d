"""`io3ops bench`: measures what the gateway costs."""
