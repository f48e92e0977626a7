"""What the user's own code gives: a factory, a module, and what the module says about itself."""
