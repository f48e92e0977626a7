"""Black-box attacks that see the network's scores."""
