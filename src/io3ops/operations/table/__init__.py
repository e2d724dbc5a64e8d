"""`io3ops routes`, `preset` and `render-config`: the routing table and what is rendered of it."""
