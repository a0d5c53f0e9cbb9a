"""``cloudlunacy demo``: a whole fleet on one machine, made of the same commands and programs as a real one.

*Part*: a process that the demo starts: mongod, apps, Traefik, ``serve``, agents.
*Folder*: where all of it lies, ``.demo`` unless told otherwise.
*Work*: a clone of the state repo, in which the person at the keyboard edits and from which they push.
*Narrator*: says each stage that a push reaches, as it is reached.

In order: ``folder`` and ``ports`` are chosen, ``state_repo`` makes the remote and the clone, ``parts`` is the table of
processes, ``supervisor`` owns them, ``fleet`` brings them up and enrols the agents; then either ``screen`` and
``follow`` (for a person) or ``once`` (for a machine). ``apps`` and ``hook`` run in processes of their own.
"""
