"""The store contract: indexes, features, adversarials, banks and votes. No torch, no Ray."""
