"""What a trace froze, and whether it holds: report, self-check, watch of live replays."""
