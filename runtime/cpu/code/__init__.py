"""Writing machine code: LLVM IR as text, and the scalar language in it."""
