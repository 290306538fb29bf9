"""The runner of the docs' examples (docs/examples.py); .ci/readme runs the real pages in a fresh clone."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from docs import examples as module
from docs.examples import Example, Failed, examples, first_steps, pages, run
from tests.paths import REPOSITORY

PAGE = """# A page

```sh
python a.py --x \\
    --y
# a comment
b
```

```
no example
```

<!-- example: add --port 0 -->
<!-- example: until http -->
```sh
python serve.py
```

<!-- an ordinary comment -->
<!-- example: not run, it needs a network -->
```sh
fetch
```

```python
x = 1
```
"""


def test_examples_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    found = [(each.line, each.kind, each.command, each.until, each.skip) for each in examples(page)]
    assert found == [
        (4, "sh", "python a.py --x --y", "", ""),
        (7, "sh", "b", "", ""),
        (17, "sh", "python serve.py --port 0", "http", ""),
        (23, "sh", "fetch", "", "it needs a network"),
        (27, "python", "x = 1", "", ""),
    ]


@pytest.mark.parametrize("mark", ["not run", "skip, because", "until", "add"])
def test_a_malformed_mark_is_an_error(mark: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"text\n\n<!-- example: {mark} -->\n```sh\na\n```\n")
    with pytest.raises(ValueError, match=r"page.md:3: cannot read"):
        list(examples(page))


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_marks_of_the_real_pages_are_valid(page: Path) -> None:
    found = list(examples(page))
    assert len({each.line for each in found}) == len(found)


def test_all_pages_run_readme_first() -> None:
    assert pages()[0].name == "README.md" and set((REPOSITORY / "docs").glob("*.md")) < set(pages())
    assert [each.skip for each in first_steps()] == [""] * 6
    first = next(examples(pages()[0]))
    assert first.command.startswith("python3 -m venv .venv ") and first.command.endswith("python detect.py")


def example(text: str, kind: str = "sh", until: str = "") -> Example:
    return Example(page="p.md", line=1, kind=kind, text=text, until=until)


TRAPPED = "trap 'exit 130' INT; echo ready; sleep 20 & wait"


@pytest.mark.parametrize(
    ("each", "fails"),
    [
        (example("echo a | grep a"), ""),
        (example("false | cat"), "ended with 1"),
        (example("echo seen; exit 3"), "seen"),
        (example("assert 1 + 1 == 2", "python"), ""),
        (example("assert 1 + 1 == 3", "python"), "AssertionError"),
        (example(TRAPPED, until="ready"), ""),
        (example("echo other", until="ready"), "expected 130"),
        (example("sleep 5"), "timed out after"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_failing_example_is_reported(each: Example, fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT_S", 2.0)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    if fails:
        with pytest.raises(Failed, match=fails):
            run(each, environment)
    else:
        run(each, environment)


def test_a_failure_ends_with_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\ntrue\nexit 4\ntouch after\n```\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    assert module.main([str(page)]) == 1
    assert "page.md:4" not in capsys.readouterr().out and not (tmp_path / "after").exists()
