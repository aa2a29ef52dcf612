"""`act2goal …`: one small file per command, each exposing a click command named `command`."""
