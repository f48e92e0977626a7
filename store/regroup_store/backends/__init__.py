"""Where the bytes of a store lie: a folder or an object store."""
