"""One outside thing per file. Adapters never import each other; whatever they need is handed to them."""
