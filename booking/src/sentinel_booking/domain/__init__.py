"""Pure rules of booking. No IO, no framework, standard library only."""
