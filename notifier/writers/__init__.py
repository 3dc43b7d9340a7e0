"""For applications that write: sets the actor of a transaction, and reads its number.

`acting_as` names the user, whom messages then carry as `Actor`. `sqlalchemy`, `django` and `fastapi`
pass the name to the database. None of these packages is needed for the others.
"""

from notifier.writers.actor import acting_as, current_actor

__all__ = ["acting_as", "current_actor"]
