"""How the two clients of the outside world behave, in fair weather and foul."""
