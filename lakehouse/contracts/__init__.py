"""What does a table promise? Declaring it, and what each engine makes of the declaration."""
