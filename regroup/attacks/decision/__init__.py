"""Black-box attacks that see only the predicted class."""
