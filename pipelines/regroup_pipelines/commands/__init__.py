"""What each subcommand of `regroup` does."""
