"""The options of every command, as dataclasses. Importing them loads no torch, ray or zarr."""
