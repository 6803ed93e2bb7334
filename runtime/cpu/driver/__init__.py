"""The native driver that runs a plan, and the threads that help it."""
