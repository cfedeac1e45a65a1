"""What a test said, in one of four words, with a reason and its cases."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

PASS, FAIL, SKIP, HUNG = "pass", "fail", "skip", "hung"

AVOCADO_WORDS = {"PASS": PASS, "WARN": PASS, "SKIP": SKIP, "CANCEL": SKIP}


@dataclass(frozen=True)
class Verdict:
    """The outcome of one run: the word, why, and what became of each case inside."""

    word: str
    reason: str = ""
    cases: dict[str, str] = field(default_factory=dict)


def of_cases(cases: dict[str, str], reasons: list[str], output: str, status: int) -> Verdict:
    """Sums up a test that consists of cases: one failed case is a failure, and all skipped is a skip."""
    words = set(cases.values())
    if FAIL in words or status != 0 or not cases:
        failed = [name for name, word in cases.items() if word == FAIL]
        reason = f"{len(failed)} of {len(cases)} cases fail: {last_error(output)}" if failed else last_error(output)
        return Verdict(FAIL, reason, cases)
    if words == {SKIP}:
        return Verdict(SKIP, reasons[0] if reasons else "every case is skipped", cases)
    skipped = sum(word == SKIP for word in cases.values())
    return Verdict(PASS, f"{skipped} of {len(cases)} cases skipped: {reasons[0]}" if skipped else "", cases)


def of_tap(output: str, status: int) -> Verdict:
    """Reads the lines of the Test Anything Protocol that QEMU's functional tests print."""
    cases: dict[str, str] = {}
    reasons: list[str] = []
    for line in output.splitlines():
        found = re.match(r"(not )?ok \d+ (\S+)(?: # SKIP ?(.*))?$", line)
        if found:
            fails, name, skip = found.groups()
            cases[name] = SKIP if skip is not None else FAIL if fails else PASS
            if skip is not None:
                reasons.append(skip)
    return of_cases(cases, reasons, output, status)


def of_avocado(results: Path, output: str, status: int) -> Verdict:
    """Reads the results that avocado leaves in its folder."""
    found = sorted(results.glob("job-*/results.json"))
    if not found:
        return Verdict(FAIL, last_error(output))
    cases: dict[str, str] = {}
    reasons: list[str] = []
    failures: list[str] = []
    for test in json.loads(found[-1].read_text(encoding="utf-8"))["tests"]:
        name = re.sub(r"^\d+-.*:", "", test["id"])
        cases[name] = AVOCADO_WORDS.get(test["status"], FAIL)
        said = one_line(str(test.get("fail_reason") or ""))
        (failures if cases[name] == FAIL else reasons).append(said)
    if FAIL in cases.values():
        return Verdict(FAIL, f"{len(failures)} of {len(cases)} cases fail: {failures[0]}", cases)
    reasons = [reason for reason in reasons if reason] or ["the test cancels itself"]
    return of_cases(cases, reasons, output, status)


def of_iotest(output: str, images: Path, status: int) -> Verdict:
    """Reads what `check -tap` says of the one test it ran."""
    if re.search(r"^ok .* # SKIP", output, re.MULTILINE):
        said = [path.read_text(encoding="utf-8", errors="replace") for path in images.rglob("*.notrun")]
        return Verdict(SKIP, one_line(said[0]) if said else "not run")
    if re.search(r"^ok ", output, re.MULTILINE) and status == 0:
        return Verdict(PASS)
    return Verdict(FAIL, iotest_failure(output))


def iotest_failure(output: str) -> str:
    """Finds the most telling line of a difference to the expected output."""
    added = [line[1:].strip() for line in output.splitlines() if line.startswith("+") and not line.startswith("+++")]
    errors = [line for line in added if re.match(r"[\w.]*(Error|Exception|Failure|Shutdown|Timeout)\b", line)]
    if errors:
        return one_line(errors[-1])
    return "output differs: " + one_line(next((line for line in added if line), "lines are missing"))


def last_error(output: str) -> str:
    """Finds the last line that names an exception, or else the last line."""
    lines = [line.lstrip("# ").strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Failure|Shutdown|Timeout)\b", line)]
    return one_line(errors[-1] if errors else lines[-1] if lines else "no output")


def one_line(text: str, limit: int = 160) -> str:
    """Puts a text on one line of a table."""
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
