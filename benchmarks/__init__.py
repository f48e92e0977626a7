"""What backs every performance figure of the README and the docs."""
