"""One thin program per job, and the `regroup` command."""
