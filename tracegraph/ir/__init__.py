"""The intermediate representation: graphs of typed, pure nodes."""
