"""The command `regroup train-demo-model`, run from a clone (docs/cluster.md)."""

if __name__ == "__main__":
    from launcher import launch

    launch("train-demo-model")
