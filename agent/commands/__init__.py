"""One-shot work that a person asked for, on this agent. It never changes what is wanted.

command   a request with an id, an action, a deployment and a time limit (:class:`schemas.session.Command`)
handler   does the work of one action; :class:`agent.commands.runner.Commands` has them by the action's name
output    what a handler writes, on its way to whoever asked
end       the last piece: an empty reason where it ended well, else a CamelCase word and a sentence
"""
