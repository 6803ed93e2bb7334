"""The functions of the scalar language that processors have no instruction for.

Each is written once for float32 and float64, `f(m, x)` over an Emitter, as branch-free code that
keeps to +, −, ×, ÷, square roots, comparisons and bits, so that it vectorises at any width. Only
arguments beyond the usual range (sin of 1e9, fmod of 1e300 by 3) take a branch. Coefficients are
our own fits (tests/tools/fit_elementary.py); bounds are in docs/numerics.md.

Where an algorithm needs error-free steps it takes constants that make products exact, or sums
and products in two words, so that it does not depend on fused multiplication and addition (FMA).
Elsewhere FMA is used where the target has it: results are the same at every width, and on all
targets that have FMA; without it they may differ in the last bit, within the same bounds.
"""
