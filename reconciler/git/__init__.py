"""Everything that runs the git program: the bare mirror, commits of our own, the remote.

Words used here:

``Remote``      where the state repo lives and how to get in; the one place that accepts a URL
``Mirror``      a bare repository under the data directory, owned by one process; never a work tree
``tip``         the commit that a branch of the remote points at now
``runner``      one git process: time-out, caps, a clean environment, cleaned words
``damage``      the mirror's own files are wrong; it is rebuilt beside and renamed into place
``WriteBack``   commits of our own, built at the tip in one process and pushed once

Order of a poll: ``Mirror.head`` (one ``ls-remote``) → ``fetch`` (one ``fetch``, when the head is new) → ``descends`` →
``changes`` or ``snapshot`` → ``read``.
"""
