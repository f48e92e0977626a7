"""The command `regroup ls`, run from a clone (docs/cluster.md)."""

from regroup_pipelines.cli import run_command

if __name__ == "__main__":
    run_command("ls")
