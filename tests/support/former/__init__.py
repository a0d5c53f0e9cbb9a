"""Both sides of the conversation as they were one version ago, kept here so that today's can be tried against them.

``messages`` is what ``schemas/session.py`` was, ``agent_session`` and ``control_session`` what the two sessions were.
Nothing in them is ever mended: when a version is released, its files take their place.
"""
