"""Forges: where the state repo lies, and where people look at changes before and after they are merged.

forge        GitHub, GitLab, Gitea or Forgejo, Bitbucket; :mod:`reconciler.forges.forge` says what each of them can do
place        which forge, where its API answers, and which repository there
status       the mark of a commit that says where it stands (``context`` cloudlunacy), from the convergence record
proposal     a branch that waits to be merged, and the pull request for it
comment      the plan of a pull request; there is one, found by a hidden marker, and it is updated

A forge is a mirror for people. Nothing that it answers changes what is in service, and its outage costs no more than
marks that come late.
"""
