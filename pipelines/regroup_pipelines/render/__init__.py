"""Rendering of records: terminal, Markdown, CSV, LaTeX and figures."""
