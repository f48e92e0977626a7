"""The command `regroup demo`, run from a clone (docs/cluster.md)."""

if __name__ == "__main__":
    from launcher import launch

    launch("demo")
