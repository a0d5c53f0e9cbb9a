"""The rows of each protocol: functions of an open connection, run by ``reconciler.store.engine`` in a transaction."""
