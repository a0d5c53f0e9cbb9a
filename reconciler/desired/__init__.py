"""Pure decisions: from the files of a revision to what shall run. Nothing here opens, waits or asks the clock."""
