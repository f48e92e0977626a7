"""The subcommands of `regroup`: one module with a `main` per command."""
