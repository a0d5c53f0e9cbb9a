"""The certificate authority of the fleet.

*root*: self-signed, trusted by everybody, signs intermediates and nothing else; its key may lie elsewhere (offline).
*intermediate*: signs leaves; constrained to the names that the fleet may use. *leaf*: a certificate of a server, an
agent or a service. *chain*: leaf, intermediate and root, as a server presents them. *bundle*: the trusted roots.
*role*: of roots and intermediates there may be a previous and a next one beside the current one.
*inventory*: what was ever issued and revoked. *permitted*: the names that an intermediate may sign.

``names``, ``profiles``, ``requests`` and ``revocation`` decide and open nothing: clock, serials and keys are arguments.
``pairs`` and ``inventory`` are files; ``founding`` makes a first authority; ``authority`` puts them together.
"""
