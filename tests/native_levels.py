"""The instruction sets that this machine can run, to force each in tests."""

from __future__ import annotations

from tracegraph.runtime.cpu.code.llvm import Target, host_target, level_target


def _runnable() -> dict[str, Target]:
    host = host_target()
    if host.triple.startswith(("aarch64", "arm64")):
        return {"neon": level_target("neon")}
    has = set(host.features.split(","))
    needs = {"sse2": set(), "avx2": {"+avx2", "+fma"}, "avx512": {"+avx512f", "+avx512vl"}}
    return {name: level_target(name) for name, features in needs.items() if features <= has}


LEVEL_TARGETS = _runnable()
