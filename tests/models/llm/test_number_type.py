"""The engine computes in the number type that the processor has instructions for."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.llm import number_type


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags : fpu sse4_2 avx2 fma", "float32"),
        ("flags : fpu avx2 avx512f avx512_bf16", "bfloat16"),
        ("flags : fpu avx2 amx_bf16 amx_tile", "bfloat16"),
        ("Features : fp asimd bf16", "bfloat16"),
    ],
)
def test_the_number_type_is_one_that_the_processor_multiplies(
    flags: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(number_type, "_made_for_processors", lambda: True)
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor : 0\n{flags}\n")
    assert number_type.native_number_type.__wrapped__(info) == expected


def test_a_machine_that_does_not_tell_gets_the_safe_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(number_type, "_made_for_processors", lambda: True)
    assert number_type.native_number_type.__wrapped__(tmp_path / "none") == "float32"


def test_a_gpu_has_bfloat16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(number_type, "_made_for_processors", lambda: False)
    assert number_type.native_number_type.__wrapped__(tmp_path / "none") == "bfloat16"
