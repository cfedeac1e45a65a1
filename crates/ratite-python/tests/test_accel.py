"""Which accelerators there are, and which are of use."""

import os
import subprocess
from pathlib import Path

import pytest

from ratite import accel

QEMU = "qemu-system-x86_64"


def test_what_is_listed_is_what_the_binary_says() -> None:
    listed = accel.list_accel(QEMU)

    assert "tcg" in listed
    assert accel.tcg_available(QEMU)
    assert accel.list_accel("") == []


def test_a_binary_that_is_none_is_told_as_ever(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        accel.list_accel("/nope/qemu")
    with pytest.raises(subprocess.CalledProcessError):
        accel.tcg_available("false")


def test_kvm_is_there_if_its_device_opens_for_that_architecture() -> None:
    opens = os.access("/dev/kvm", os.R_OK | os.W_OK)

    assert accel.kvm_available() == opens
    assert not accel.kvm_available("s390x")
    assert accel.kvm_available(os.uname().machine) == opens
    assert accel.kvm_available(qemu_bin=QEMU) == (opens and "kvm" in accel.list_accel(QEMU))


def test_tcg_runs_guest_code() -> None:
    # A busy machine may need more than the usual limit.
    tcg = accel.measure("tcg", limit=60.0)

    assert tcg.is_usable, tcg.why
    assert tcg.listed
    assert tcg.speed is not None and tcg.speed.loops_per_second is not None
    assert tcg.speed.loops_per_second > 0


def test_what_is_not_built_in_is_of_no_use() -> None:
    nothing = accel.measure("nope")

    assert (nothing.listed, nothing.verdict, nothing.speed) == (False, "unusable", None)
    assert nothing.why == "is not built into this QEMU"


def test_an_accelerator_that_only_opens_is_no_use() -> None:
    """Whatever KVM is here: the answer comes in time, and is a verdict with figures, or with a reason."""
    for measurement in accel.measure_all(limit=60.0):
        assert measurement.verdict in ("usable", "unusable")
        assert measurement.is_usable or measurement.why
