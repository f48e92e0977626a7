"""Banks: choosing their samples, building them, and comparing them."""
