"""From graphs to plans: one template a kind of op, places in memory."""
