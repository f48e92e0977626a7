"""The format (docs/format.md): fingerprints, manifests, arrays, tables, commits and elements."""
