"""Everything that runs the git program: the bare mirror, commits of our own, the remote."""
