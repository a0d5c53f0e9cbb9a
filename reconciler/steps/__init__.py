"""The steps of one pass, in the order of :mod:`reconciler.loop`.

``source``    fetch the revision and accept it: fast-forward, signatures
``desire``    parse, settle, plan, guard
``fronts``    render, preflight, publish, read back
``delivery``  hand each agent its document

A step takes the :class:`~reconciler.steps.passing.Pass`, adds what it found out, and raises when the pass must end.
"""
