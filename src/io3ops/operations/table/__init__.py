"""`io3ops routes`, `preset` and `render-config`: the routing table and the files that are rendered from it."""
