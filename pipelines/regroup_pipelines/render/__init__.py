"""Records as text: terminal, Markdown, CSV, LaTeX and figures."""
