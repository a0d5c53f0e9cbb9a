"""Who is told that something needs a person: each change once, with reminders, and when it is over."""
