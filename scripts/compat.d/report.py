"""The results of all contenders, side by side: as lines while they come, as JSON, and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cache import Prepared
from outcome import PASS, SKIP, Verdict


@dataclass(frozen=True)
class Result:
    """One test with one contender."""

    verdict: Verdict
    seconds: float
    runs: int
    left_processes: tuple[str, ...]
    left_files: tuple[str, ...]

    def render(self) -> str:
        """Puts it in one cell of a table."""
        words = [self.verdict.word]
        if self.verdict.cases:
            words.append(f"{self.passed_cases}/{len(self.verdict.cases)}")
        if self.runs > 1:
            words.append(f"(run {self.runs})")
        if self.left_processes:
            words.append(f"+{len(self.left_processes)} left running")
        return " ".join(words)

    @property
    def passed_cases(self) -> int:
        """How many of its cases passed."""
        return sum(word == PASS for word in self.verdict.cases.values())


@dataclass(frozen=True)
class Row:
    """One test with every contender that ran it, the original first."""

    identity: str
    suite: str
    results: dict[str, Result]

    @property
    def regressions(self) -> list[str]:
        """What passes with the original and not with the drop-in: the test, or cases inside of it."""
        original, drop_in = self.results.get("original"), self.results.get("drop-in")
        if original is None or drop_in is None:
            return []
        if original.verdict.word == PASS and drop_in.verdict.word != PASS:
            return [self.identity]
        after = drop_in.verdict.cases
        return [
            f"{self.identity}: {name}"
            for name, word in original.verdict.cases.items()
            if word == PASS and after.get(name) != PASS
        ]


@dataclass(frozen=True)
class Report:
    """Everything that was found in one run of this program."""

    prepared: Prepared
    contenders: tuple[str, ...]
    rows: tuple[Row, ...]
    wall_seconds: float
    with_qmp: bool

    @property
    def regressions(self) -> list[str]:
        """Everything that passes with the original and not with the drop-in."""
        return [name for row in self.rows for name in row.regressions]

    def results(self, contender: str, suite: str = "") -> list[Result]:
        """Returns one contender's results, of one suite or of all."""
        rows = [row for row in self.rows if suite in ("", row.suite)]
        return [row.results[contender] for row in rows if contender in row.results]

    def summary(self) -> str:
        """Returns a few lines for the terminal."""
        lines = []
        for contender in self.contenders:
            results = self.results(contender)
            lines.append(f"{contender}: {counts(results)}")
        for name in self.regressions:
            lines.append(f"passes with the original only: {name}")
        return "\n".join(lines)

    def write_json(self, path: Path) -> None:
        """Writes everything, for programs."""
        content = {
            "qemu": self.prepared.qemu_version,
            "package": self.prepared.qemu_package,
            "sources": [source.version for source in self.prepared.sources],
            "with_qmp": self.with_qmp,
            "wall_seconds": round(self.wall_seconds, 1),
            "regressions": self.regressions,
            "tests": [
                {
                    "test": row.identity,
                    **{
                        name: {**asdict(result), "seconds": round(result.seconds, 2)}
                        for name, result in row.results.items()
                    },
                }
                for row in self.rows
            ],
        }
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def write_markdown(self, path: Path) -> None:
        """Writes the tables, for people."""
        path.write_text("\n".join(self.markdown()) + "\n", encoding="utf-8")

    def markdown(self) -> Iterator[str]:
        """Yields the lines of the tables: a sum for each suite, then each test."""
        sources = " and ".join(source.version for source in self.prepared.sources)
        yield f"QEMU {self.prepared.qemu_version} ({self.prepared.qemu_package}) with the tests of QEMU {sources}."
        replaced = "`qemu.machine` and `qemu.qmp`" if self.with_qmp else "`qemu.machine`"
        if "drop-in" in self.contenders:
            yield f"The drop-in replaces {replaced}."
        yield f"All of it took {self.wall_seconds / 60:.0f} minutes."
        yield ""
        for name in self.contenders:
            yield f"- {name}: {counts(self.results(name))}"
        yield ""
        yield from table(
            ["Suite", *(f"{name}: {what}" for name in self.contenders for what in ("pass", "fail", "skip", "seconds"))],
            self.suite_cells(),
            left=1,
        )
        yield ""
        heads = ["Test", *(what for name in self.contenders for what in (name, "s")), "Reason"]
        yield from table(heads, [self.row_cells(row) for row in self.rows], left=1)

    def suite_cells(self) -> Iterator[list[str]]:
        """Yields one line for each suite and one for all of them."""
        for suite in [*dict.fromkeys(row.suite for row in self.rows), ""]:
            cells = [suite or "**all**"]
            for name in self.contenders:
                results = self.results(name, suite)
                passed = sum(result.verdict.word == PASS for result in results)
                skipped = sum(result.verdict.word == SKIP for result in results)
                seconds = sum(result.seconds for result in results)
                cells += [str(passed), str(len(results) - passed - skipped), str(skipped), f"{seconds:.0f}"]
            yield cells

    def row_cells(self, row: Row) -> list[str]:
        """Returns the cells of one test."""
        cells = [row.identity]
        reasons: list[str] = []
        for name in self.contenders:
            result: Result | None = row.results.get(name)
            cells += [result.render(), f"{result.seconds:.1f}"] if result else ["", ""]
            if result and result.left_files:
                reasons.append(f"{name} leaves {len(result.left_files)} files")
            if result and result.verdict.reason and result.verdict.reason not in reasons:
                reasons.append(result.verdict.reason)
        return [*cells, "; ".join(reasons)]


def counts(results: Sequence[Result]) -> str:
    """Sums up results in one line."""
    words: dict[str, int] = {}
    for result in results:
        words[result.verdict.word] = words.get(result.verdict.word, 0) + 1
    cases = sum(len(result.verdict.cases) for result in results)
    passed = sum(result.passed_cases for result in results)
    parts = [f"{number} {word}" for word, number in sorted(words.items())]
    seconds = sum(result.seconds for result in results)
    processes = sum(len(result.left_processes) for result in results)
    files = sum(len(result.left_files) for result in results)
    parts += [f"{passed} of {cases} cases", f"{seconds:.0f} s", f"{processes} processes and {files} files left behind"]
    return ", ".join(parts)


def table(heads: Sequence[str], rows: Iterator[list[str]] | list[list[str]], left: int) -> Iterator[str]:
    """Yields a Markdown table whose first `left` columns and the column `Reason` hold text."""
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "|".join("---" if i < left or not is_number(head) else "---:" for i, head in enumerate(heads)) + "|"
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def is_number(head: str) -> bool:
    """Tells whether the column of this head holds numbers."""
    return head == "s" or ": " in head
