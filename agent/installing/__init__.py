"""Puts an agent onto a machine with systemd, brings it to another version, takes it away again (docs/installing.md).

A *step* is one thing to do, with the sentence that is shown for it. *Facts* are what is there before the first step, so
that a run which was cut off is gone on with by the next. A *release* is one version of the program in a virtual
environment of its own, ``/opt/cloudlunacy/versions/<name>``.
"""
