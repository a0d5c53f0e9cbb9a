"""What the control plane knows of MongoDB: connection strings, who answers a wrong name, and what is wrong with one.

*Connection string*: the URI that drivers take (https://www.mongodb.com/docs/manual/reference/connection-string/).
*Doorman*: answers drivers whose connection no route wants, with a sentence in place of a closed connection.
*Wire protocol*: messages of a 16-byte header and BSON, little-endian
(https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/).
"""
