"""The command line itself: one screen of help, examples that work, nearest names, completion."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import tyro

from regroup_pipelines.cli import main
from regroup_pipelines.configs.table import ALONE, CONFIGS
from regroup_pipelines.render.formatting import human_size
from regroup_store.format.store import open_store
from tests.pipelines.conftest import Run
from tests.pipelines.small_study import write_index, write_small_study

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PACKAGES = [ROOT / name for name in ("regroup", "store", "cluster", "pipelines")]


def examples(kind: type[Any]) -> list[list[str]]:
    """The commands in a docstring: from "Example: regroup" to the next empty line, or the end."""
    text = inspect.getdoc(kind) or ""
    found = re.findall(r"Example: (regroup .*?)(?:\n\s*\n|\Z)", text, re.DOTALL)
    return [shlex.split(example) for example in found]


def documented() -> list[str]:
    """The commands in fenced blocks of README and docs/, and in the heads of shipped studies."""
    pages = [ROOT / "README.md", *DOCS.rglob("*.md")]
    fenced = [block for page in pages for block in re.findall(
        r"^```\w*\n(.*?)^```", page.read_text(), re.DOTALL | re.M
    )]  # fmt: skip
    studies = (ROOT / "pipelines" / "regroup_pipelines" / "studies").glob("*.toml")
    heads = [re.sub(r"^#", "", path.read_text(), flags=re.M) for path in studies]
    return sorted({line for text in (*fenced, *heads) for line in commands_in(text)})


def commands_in(text: str) -> list[str]:
    """The lines that begin with `regroup`, with the variables that the text sets filled in."""
    text = re.sub(r"\\\n\s*", " ", text)
    for name, value in re.findall(r"\b([A-Z]+)=(\"[^\"]*\"|\S+)", text):
        text = text.replace(f"${name}", value.strip('"'))
    lines = [line.partition("  #")[0].strip() for line in text.splitlines()]
    return [line for line in lines if re.match(r"regroup [a-z][\w-]*( |$)", line)]


def hinted() -> list[str]:
    """What the sentences of the sources name between backticks: `regroup ...`."""
    texts = [
        "".join(
            each.value if isinstance(each, ast.Constant) and isinstance(each.value, str) else "1"
            for each in (node.values if isinstance(node, ast.JoinedStr) else [node])
        )
        for package in PACKAGES
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant | ast.JoinedStr)
    ]
    found = {each for text in texts for each in re.findall(r"`(regroup [a-z][^`]*)`", text)}
    return sorted(" ".join(each.split()) for each in found)


def parse(words: list[str]) -> object:
    """What the command's parser makes of an example."""
    assert words[0] == "regroup"
    alone = [
        kind for (name, option), (_, kind) in ALONE.items() if words[1] == name and option in words
    ]
    return tyro.cli((alone or [CONFIGS[words[1]]])[0], args=words[2:])


@pytest.mark.parametrize(
    "kind",
    [*CONFIGS.values(), *(kind for _, kind in ALONE.values())],
    ids=lambda kind: kind.__name__,
)
def test_every_command_has_an_example_that_parses(kind: type[Any]) -> None:
    found = examples(kind)
    assert found, f"the docstring of {kind.__name__} has no example"
    for words in found:
        assert type(parse(words)) is kind


def test_a_stale_example_is_noticed() -> None:
    class Stale:
        """Something.

        Example: regroup ls --store runs
        --no-such-option 3

        More text.
        """

    (words,) = examples(Stale)
    assert words[-1] == "3"
    with pytest.raises(SystemExit):
        parse(words)


@pytest.mark.parametrize("line", documented())
def test_commands_in_the_docs_parse(line: str) -> None:
    if "..." in line:
        assert unknown_options(line) == set()
    else:
        parse(shlex.split(line))


@pytest.mark.parametrize("line", hinted())
def test_what_the_sentences_tell_to_run_is_known(line: str) -> None:
    """A hint may leave out what the reader has just given, but names nothing that is not there."""
    assert unknown_options(line) == set()


def unknown_options(line: str) -> set[str]:
    """Those that a command's parser would refuse."""
    _, command, *words = shlex.split(line)
    known = {"--" + field.name.replace("_", "-") for field in fields(CONFIGS[command])}
    known |= {option for name, option in ALONE if name == command}
    return {word for word in words if word.startswith("--")} - known


def test_help_is_one_screen_and_names_every_command(run: Run) -> None:
    shown = run("--help")
    assert (shown.status, shown.err) == (0, "")
    assert shown.out.startswith("usage: regroup ")
    lines = shown.out.rstrip().splitlines()
    assert 24 <= len(lines) <= 40
    assert max(map(len, lines)) <= 80
    named = [line.split()[0] for line in lines if re.match(r"  \S", line)]
    assert sorted(named) == sorted(CONFIGS), (
        "pipelines/regroup_pipelines/help_page.py names every command, once"
    )
    assert "--tyro-print-completion" in "".join(lines[-2:])
    assert run("-h").out == run("help").out == shown.out
    assert run().err == shown.out


def test_the_version_is_that_of_the_distribution(run: Run) -> None:
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["project"]
    shown = run("--version")
    assert (shown.status, shown.out, shown.err) == (0, f"regroup-ray {project['version']}\n", "")
    assert "did you mean --version?" in run("--versoin").err


def test_the_docs_name_every_command() -> None:
    text = (DOCS / "cli.md").read_text()
    assert [name for name in CONFIGS if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["lss", "--store", "x"], "regroup: there is no command 'lss': did you mean ls?"),
        (["evalute"], "there is no command 'evalute': did you mean evaluate?"),
        (["zzzz"], "there is no command 'zzzz': `regroup --help` lists them all"),
        (["--hepl"], "there is no option '--hepl': did you mean --help?"),
        (["ls", "--stroe", "x"], "regroup ls: --stroe: did you mean --store?"),
        (["ls", "--store", "x", "--raesons"], "regroup ls: --raesons: did you mean --reasons?"),
        (["gc", "--store=x", "--unfinishd"], "regroup gc: --unfinishd: did you mean --unfinished?"),
    ],
)
def test_misspelt_words_are_answered_with_the_nearest(
    run: Run, words: list[str], sentence: str
) -> None:
    done = run(*words)
    assert done.status == 2
    assert done.out == ""
    assert done.err.strip().splitlines()[-1].endswith(sentence)


def test_options_that_exist_are_not_doubted(run: Run) -> None:
    done = run("attack", "--store", "x", "--channels_last", "--no-tf32")
    assert done.status == 2
    assert "did you mean" not in done.err
    assert "--dataset" in done.err, "what is missing is named"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_scripts(shell: str, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--tyro-print-completion", shell])
    script = capfd.readouterr().out
    assert not stop.value.code
    for name in CONFIGS:
        assert re.search(rf"[\"' ]{name}[\"' ]", script), name
    assert "--voting-taps" in script
    assert script.startswith("#compdef regroup") or "complete " in script
    with pytest.raises(SystemExit):
        main(["--tyro-write-completion", shell, str(tmp_path / "script")])
    assert (tmp_path / "script").read_text().strip() == script.strip()
    if shell == "bash":
        subprocess.run(["bash", "-n", str(tmp_path / "script")], check=True)


def test_bash_completes(tmp_path: Path) -> None:
    """What the tab key would offer, asked of the script in a real bash."""
    script = tmp_path / "regroup.bash"
    with pytest.raises(SystemExit):
        main(["--tyro-write-completion", "bash", str(script)])

    def offered(*words: str) -> set[str]:
        function = re.findall(r"complete .*-F (\S+)", script.read_text())[0]
        line = " ".join(map(shlex.quote, words))
        asked = (
            f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; "
            f'COMP_LINE="{line}"; COMP_POINT=${{#COMP_LINE}}; {function}; '
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    assert offered("regroup", "re") == {"rescore", "repair", "report"}
    assert {"--store", "--study", "--format"} <= offered("regroup", "export", "--")


HEAVY = ("torch", "ray", "matplotlib", "pandas", "dask", "torchvision")
STARTED = """
import sys
from regroup_pipelines.cli import main
try:
    main({words})
except SystemExit as stop:
    assert not stop.code, stop.code
print(sorted(set({names}) & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--help"], (*HEAVY, "zarr", "pyarrow", "numpy")),
        (["--tyro-print-completion", "bash"], HEAVY),
        (["gc", "--help"], (*HEAVY, "zarr", "pyarrow")),
        (["ls", "--store", "STORE"], HEAVY),
        (["gc", "--store", "STORE"], HEAVY),
        (["inspect", "pets", "--store", "STORE"], HEAVY),
    ],
)
def test_starting_imports_nothing_heavy(
    words: list[str], names: tuple[str, ...], tmp_path: Path
) -> None:
    store = str(tmp_path / "store")
    write_index(open_store(store, create=True))
    words = [store if word == "STORE" else word for word in words]
    script = STARTED.format(words=words, names=names)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"


def test_sizes_are_for_people(run: Run, tmp_path: Path) -> None:
    assert [human_size(n) for n in (0, 999, 1000, 3_400_000, 5 * 10**12)] == [
        "0 bytes", "999 bytes", "1.0 kB", "3.4 MB", "5.0 TB",
    ]  # fmt: skip
    write_small_study(open_store(str(tmp_path / "s"), create=True))
    shown = run("ls", "--store", tmp_path / "s").out
    assert re.search(r"elements: 7, \d+\.\d kB; runs recorded: 0", " ".join(shown.split()))
