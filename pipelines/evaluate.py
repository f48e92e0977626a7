"""The command `regroup evaluate`, run from a clone (docs/cluster.md)."""

if __name__ == "__main__":
    from launcher import launch

    launch("evaluate")
