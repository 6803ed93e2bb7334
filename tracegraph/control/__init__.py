"""Control flow as ops: `cond`, `while_loop`, `scan`, `map`, and the regions that they run."""
