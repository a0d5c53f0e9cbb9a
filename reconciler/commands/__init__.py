"""What the commands of the CLI do, without arguments to parse and without printing."""
