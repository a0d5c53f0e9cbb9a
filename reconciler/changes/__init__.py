"""What people change, as commits (docs/changes.md).

- a *change*: files as they shall be, all in one commit (:class:`schemas.changes_api.Change`);
- to *check* it: the validation of ``validate``, and the plan, beside what the branch holds now;
- to *submit* it: may this person write these files, does it make nothing worse, then the outbox (one commit, its author
  is the person);
- a *proposal*: the same commit on a branch of its own, that somebody merges;
- to *revert* a revision: a change that brings its files back to what they were before it.
"""
