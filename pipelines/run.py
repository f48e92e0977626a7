"""The command `regroup run`, run from a clone (docs/cluster.md)."""

if __name__ == "__main__":
    from launcher import launch

    launch("run")
