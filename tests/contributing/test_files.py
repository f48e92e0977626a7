"""The index of decisions, the hooks of pre-commit and the citation."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DECISIONS = ROOT / "docs" / "decisions"


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def test_every_decision_is_numbered_listed_and_has_three_parts() -> None:
    pages = sorted(path.name for path in DECISIONS.glob("*.md") if path.name != "README.md")
    listed = re.findall(r"\[(\d{4})\]\(([\w.-]+)\)", (DECISIONS / "README.md").read_text())
    assert [name for _, name in listed] == pages
    assert [number for number, _ in listed] == [f"{n:04d}" for n in range(1, len(pages) + 1)]
    for name in pages:
        text = (DECISIONS / name).read_text()
        assert text.startswith(f"# {name[:4]}: ")
        heads = re.findall(r"^\*\*([\w ]+)\.\*\*", text, re.MULTILINE)
        assert heads == ["Context", "Decision", "What would change it"]


def test_local_hooks_run_tools_that_the_dev_extra_installs() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    installed = [
        re.split(r"[><=\[]", each)[0] for each in project()["optional-dependencies"]["dev"]
    ]
    packages = {"ruff": "ruff", "mypy": "mypy", "lint-imports": "import-linter"}
    used = {hook["entry"].split()[0] for hook in hooks if hook["language"] == "system"}
    assert used == {f".venv/bin/{tool}" for tool in packages}
    assert set(packages.values()) <= set(installed)


def test_the_citation_is_of_this_software_and_names_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == project()["license"]
    assert citation["version"] == project()["version"]
    (paper,) = citation["references"]
    assert paper["identifiers"][0]["value"] == "arXiv:2006.10679"
    assert [author["family-names"] for author in paper["authors"]] == [
        "Tiwari", "Madan", "Anand", "Banerjee"
    ]  # fmt: skip
