"""Certificates from an ACME server (RFC 8555).

Words, as the RFC uses them:

``directory``      the URL that a server's other URLs are found at; one server, one directory
``account``        the key that orders are signed with
``order``          asks for one certificate for an exact set of names
``authorization``  shows for one name that we may have it, by one *challenge*: ``http-01`` or ``dns-01``
``finalize``       sends the CSR once every authorization of an order is valid
``ARI``            the server says when it wants a certificate renewed (RFC 9773)

Where things lie:

``schedule``   PURE: when an order may be placed and when a certificate is renewed
``ledger``     what the schedule must remember, as one JSON file
``wire``       what is said to the server, through the library ``acme``; blocking
``transport``  what one HTTP exchange may cost
``blocking``   the thread that it is said in
``failures``   every way in which a server fails, as a sentence
``client``     one order from its beginning, or from where a crash left it, to the chain
``solver``     what the ways to answer a challenge have in common
``http01``, ``dns01``, ``hook``   those ways
``issuer``     all of it: may we, staging first, order, remember
"""
